"""moto, with the same answers in less time: a seventh of what the tests of the functions take is one of these three."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

from moto.core import responses as core
from moto.dynamodb.parsing import ast_nodes as nodes, validators

responses: Any = core
ast_nodes: Any = nodes


@cache
def make_moto_faster() -> None:
    """Replace what is slow, once."""
    # It looks for the methods of a class at each request.
    responses.method_names_from_class = cache(responses.method_names_from_class)
    # It asks each node of an expression for each class that a validator knows, abstract classes that ask in turn.
    ast_nodes.DepthFirstTraverser.traverse_node_recursively = _traverse
    # These two judge a node by all that is below it, and are asked about each node below it too.
    _judge_the_whole(validators.ActionCountValidator, "verify_action_counts")
    _judge_the_whole(validators.OverlappingPathsValidator, "check_for_overlapping_paths")


@cache
def _class_processed(classes: tuple[Any, ...], node: Any) -> Any:
    """The first of the `classes` that `node` is derived from."""
    return next((each for each in classes if issubclass(node, each)), None)


def _traverse(self: Any, node: Any, child_id: int = -1) -> Any:
    if not isinstance(node, ast_nodes.Node):
        return node
    parent = node.parent
    for number, child in enumerate(node.children or ()):
        self.pre_processing_of_child(node, number)
        _traverse(self, child, number)
    processors, kind = self._processing_map(), cast("Any", type(node))
    known = _class_processed(tuple(processors), kind)
    if known is not None:
        node = processors[known](node)
        node.parent = parent
        if parent:
            parent.children[child_id] = node
    return node


def _judge_the_whole(validator: Any, name: str) -> None:
    judge: Callable[[Any, Any], Any] = getattr(validator, name)
    setattr(validator, name, lambda self, node: node if node.parent else judge(self, node))
