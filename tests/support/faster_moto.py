"""moto, with the same answers in less time: a third of what the tests of the functions would take is one of these."""

from __future__ import annotations

import pickle
from functools import cache, lru_cache
from typing import Any, cast

from moto.core import responses as core, serialize as serializing, utils as reading
from moto.dynamodb.parsing import ast_nodes as nodes, expressions as parsing, validators as validating

responses: Any = core
serialize: Any = serializing
utils: Any = reading
ast_nodes: Any = nodes
expressions: Any = parsing
validators: Any = validating


@cache
def make_moto_faster() -> None:
    """Replace what is slow, once."""
    # It looks for the methods of a class at each request.
    responses.method_names_from_class = cache(responses.method_names_from_class)
    # It works out under which names each member of an answer may be found, for each value again.
    serialize.AttributePicker.__call__ = _pick
    # It parses an expression twice, and only reads the result.
    expressions.UpdateExpressionParser.make = lru_cache(1_000)(expressions.UpdateExpressionParser.make)
    # It asks each node of an expression for each class that a validator knows, abstract classes that ask in turn.
    ast_nodes.DepthFirstTraverser.traverse = _traverse
    # It copies an expression before it judges it: `copy.deepcopy` takes five times as long.
    validators.deepcopy = _copy
    # These two judge a node by all that is below it, and are asked about each node below it too.
    _judge_the_whole(validators.ActionCountValidator, "verify_action_counts")
    _judge_the_whole(validators.OverlappingPathsValidator, "check_for_overlapping_paths")


def _pick(picker: Any, asked: Any) -> Any:
    found = (utils.get_value(asked.obj, key, utils.MISSING) for key in _possible_keys(picker, asked))
    value = next((each for each in found if each is not utils.MISSING), None)
    path = f"{asked.key_path}.{asked.key}"
    for end, change in picker.response_transformers.items():
        if path.endswith(end):
            return change(value)
    return value


def _possible_keys(picker: Any, asked: Any) -> tuple[str, ...]:
    """They follow from the member's shape, which stays as long as the service's model, and from the classes."""
    kept: dict[Any, tuple[str, ...]] = asked.shape.__dict__.setdefault("_possible_keys", {})
    known = type(picker), type(asked.obj), asked.key
    if known not in kept:
        kept[known] = tuple(dict.fromkeys(picker.get_possible_keys(asked)))
    return kept[known]


def _copy(node: Any) -> Any:
    return pickle.loads(pickle.dumps(node))


@cache
def _class_processed(classes: tuple[Any, ...], kind: Any) -> tuple[bool, Any]:
    """Whether that is a class of nodes, and the first of the `classes` that it is derived from."""
    return issubclass(kind, ast_nodes.Node), next((each for each in classes if issubclass(kind, each)), None)


def _traverse(self: Any, root: Any) -> Any:
    processors = self._processing_map()
    classes = tuple(processors)

    def visit(node: Any, child_id: int) -> Any:
        is_node, known = _class_processed(classes, cast("Any", type(node)))
        if not is_node:
            return node
        parent = node.parent
        for number, child in enumerate(node.children or ()):
            self.pre_processing_of_child(node, number)
            visit(child, number)
        if known is not None:
            node = processors[known](node)
            node.parent = parent
            if parent:
                parent.children[child_id] = node
        return node

    return visit(root, -1)


def _judge_the_whole(validator: Any, name: str) -> None:
    validator.traverse = lambda self, root: getattr(self, name)(root)
