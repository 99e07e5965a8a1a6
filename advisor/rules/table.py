"""All rules, in the order they are explained: the table of contents."""

from __future__ import annotations

from advisor.rules import behaviour as be
from advisor.rules import data as da
from advisor.rules import knowledge as kn
from advisor.rules import resources as rs
from advisor.rules import risk as rk
from advisor.rules import scale as sc
from advisor.rules.base import Rule

RULES: tuple[type[Rule], ...] = (
    kn.KN001, kn.KN002, kn.KN003, kn.KN004, kn.KN005, kn.KN006, kn.KN007, kn.KN008, kn.KN009, kn.KN010,
    be.BE001, be.BE002, be.BE003, be.BE004, be.BE005, be.BE006, be.BE007, be.BE008, be.BE009,
    da.DA001, da.DA002, da.DA003, da.DA004, da.DA005, da.DA006, da.DA007, da.DA008,
    da.DA009, da.DA010, da.DA011,
    sc.SC001, sc.SC002, sc.SC003, sc.SC004, sc.SC005,
    rs.RS001, rs.RS002, rs.RS003, rs.RS004, rs.RS005, rs.RS006, rs.RS007,
    rs.RS008, rs.RS009,
    rk.RK001, rk.RK002, rk.RK003, rk.RK004, rk.RK005, rk.RK006, rk.RK007,
)  # fmt: skip
