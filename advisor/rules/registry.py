"""The list of all rules, in the order they are explained: built-in ones, then those of plug-ins."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

from advisor.rules import agentic as ag
from advisor.rules import behaviour as be
from advisor.rules import data as da
from advisor.rules import knowledge as kn
from advisor.rules import labels as lb
from advisor.rules import resources as rs
from advisor.rules import risk as rk
from advisor.rules import scale as sc
from advisor.rules.base import Need, Rule
from rag.plugins import RULES as RULES_GROUP
from rag.plugins import PluginGroup, UnusablePlugin

RULES: tuple[type[Rule], ...] = (
    kn.KN001,
    kn.KN002,
    kn.KN003,
    kn.KN005,
    kn.KN008,
    kn.KN009,
    kn.KN010,
    kn.KN011,
    kn.KN012,
    kn.KN013,
    kn.KN014,
    ag.AG001,
    ag.AG002,
    ag.AG003,
    be.BE001,
    be.BE003,
    be.BE004,
    be.BE006,
    be.BE007,
    be.BE009,
    be.BE012,
    be.BE014,
    lb.LB003,
    lb.LB004,
    lb.LB005,
    lb.LB006,
    lb.LB007,
    lb.LB008,
    da.DA001,
    da.DA002,
    da.DA007,
    da.DA010,
    da.DA014,
    da.DA012,
    da.DA013,
    sc.SC001,
    sc.SC004,
    sc.SC005,
    rs.RS001,
    rs.RS003,
    rs.RS004,
    rs.RS005,
    rs.RS006,
    rs.RS007,
    rs.RS009,
    rs.RS010,
    rs.RS011,
    rs.RS013,
    rs.RS012,
    rk.RK001,
    rk.RK002,
    rk.RK003,
    rk.RK004,
    rk.RK006,
    rk.RK008,
)

_CODE = re.compile(r"[A-Z]{2,12}[0-9]{3}")


def _check_plugin(name: str, rule: Any) -> type[Rule]:
    """Return a plug-in's rule; UnusablePlugin when its code, family, text, need or weight is invalid."""
    if not (isinstance(rule, type) and issubclass(rule, Rule)):
        raise UnusablePlugin("not a subclass of advisor.rules.base.Rule")
    if rule.code() != name:
        raise UnusablePlugin(f"its code is {rule.code()!r}, not the name of the entry point")
    if not _CODE.fullmatch(name):
        raise UnusablePlugin("its code is not capital letters and three digits, such as ACME001")
    if name.startswith("BL"):
        raise UnusablePlugin("codes that begin with BL belong to what blocks a method")
    if not rule.family or not rule.__doc__:
        raise UnusablePlugin("it has no family, or no docstring to show")
    if rule.need is not None and not (isinstance(rule.need, Need) and 0 < rule.weight < math.inf):
        raise UnusablePlugin("its need is no advisor.rules.base.Need, or its weight is not above 0")
    return rule


RULE_PLUGINS = PluginGroup(RULES_GROUP, {rule.code() for rule in RULES}, _check_plugin)


@cache
def all_rules() -> tuple[type[Rule], ...]:
    """Return the built-in rules, then those of plug-ins; BadInput when a plug-in cannot be used."""
    return (*RULES, *RULE_PLUGINS.all)


@cache
def rule_instances() -> tuple[Rule, ...]:
    """Return one instance of every rule, to be applied to profiles."""
    return tuple(rule() for rule in all_rules())
