"""The descriptions of security-group rules, which moto keeps for networks alone. EC2 returns each rule's (API reference,
SecurityGroupRule, `description`)."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.security_groups import SecurityGroupRule

_extended: list[bool] = []


def describe_rules() -> None:
    """Return the description of rules for groups and prefix lists, too."""
    if _extended:
        return
    _extended.append(True)
    init = SecurityGroupRule.__init__

    def initialised(self: SecurityGroupRule, *args: Any, **given: Any) -> None:
        init(self, *args, **given)
        lists = given.get("prefix_list_id") or (args[7] if len(args) > 7 else None) or {}
        self.list_description = lists.get("Description")  # type: ignore[attr-defined]

    def description(self: SecurityGroupRule) -> str | None:
        own = self.ip_range.get("Description") or self.source_group.get("Description")
        return own or getattr(self, "list_description", None)

    SecurityGroupRule.__init__ = initialised  # type: ignore[method-assign]
    SecurityGroupRule.description = property(description)  # type: ignore[assignment]
