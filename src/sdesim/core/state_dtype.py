"""The pass over formulas: numbers take the dtype of the state, and own functions the place of libm's.

It works on Numba's intermediate representation, before types are inferred. Numba and numba-cuda have classes of their
own for it, so it is told in which module they are.
"""

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import types

from .functions import FUNCTIONS

_ARITHMETIC = {operator.add, operator.sub, operator.mul, operator.truediv, operator.mod, operator.floordiv}
_ARITHMETIC |= {operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.imod, operator.ifloordiv}
_COMPARISONS = {operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne}
_WHOLE = {operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod}
_WHOLE |= {operator.iadd, operator.isub, operator.imul, operator.ifloordiv, operator.imod}


def is_single(arguments: Any) -> bool:
    """Whether a function of these argument types works in float32."""
    leaves: set[Any] = set()
    pending = list(arguments)
    while pending:
        kind = pending.pop()
        if isinstance(kind, types.BaseTuple):
            pending.extend(kind)
        elif isinstance(kind, types.Array):
            leaves.add(kind.dtype)
        else:
            leaves.add(kind)
    return types.float32 in leaves and types.float64 not in leaves


class Rewriting:
    """The changes to one function: ``func_ir`` with the types of its arguments, in the classes of the module ``ir``.

    ``functions`` take the place of NumPy's and math's of the same names.
    """

    def __init__(self, func_ir: Any, arguments: Any, ir: Any, functions: Mapping[str, Any] = FUNCTIONS) -> None:
        self.func_ir, self.arguments, self.ir, self.functions = func_ir, arguments, ir, functions
        self.single = is_single(arguments)
        self.constants = (ir.Const, ir.Global, ir.FreeVar)

    def run(self) -> None:
        """Change the function."""
        for block in self.func_ir.blocks.values():
            for statement in block.body:
                if isinstance(statement, self.ir.Assign):
                    self._default(statement)
                    self._constant(statement)
            if self.single:
                self._integers(block)

    def _default(self, assign: Any) -> None:
        """An argument left to its default is a constant like any other."""
        ir, arguments = self.ir, self.arguments
        if isinstance(assign.value, ir.Arg) and isinstance(arguments[assign.value.index], types.Omitted):
            assign.value = ir.Const(arguments[assign.value.index].value, assign.value.loc)
            self.func_ir._definitions[assign.target.name] = [assign.value]

    def _constant(self, assign: Any) -> None:
        value = assign.value
        if self.single and isinstance(value, self.constants):
            if isinstance(value.value, (float, np.floating)):
                value.value = np.float32(value.value)
            elif isinstance(value.value, np.ndarray) and value.value.dtype == np.float64:
                value.value = value.value.astype(np.float32)
            return
        if not (isinstance(value, self.ir.Expr) and value.op == "getattr"):
            return
        module = self._definition(value.value)
        if module not in (np, math):
            return
        attribute = getattr(module, value.attr, None)
        if self.single and isinstance(attribute, float):
            replacement: Any = self.ir.Const(np.float32(attribute), value.loc)
        elif value.attr in self.functions:
            replacement = self.ir.Global(f"sdesim_{value.attr}", self.functions[value.attr], value.loc)
        else:
            return
        assign.value = replacement
        self.func_ir._definitions[assign.target.name] = [replacement]

    def _integers(self, block: Any) -> None:
        body: list[Any] = []
        for statement in block.body:
            value = getattr(statement, "value", None)
            if isinstance(statement, self.ir.Assign) and isinstance(value, self.ir.Expr):
                if value.op in ("binop", "inplace_binop") and value.fn in _ARITHMETIC | _COMPARISONS:
                    left, right = self._integer(value.lhs), self._integer(value.rhs)
                    if left is not None and not self._counts(value.rhs):
                        value.lhs = self._single(block, body, left, value)
                    elif right is not None and not self._counts(value.lhs):
                        value.rhs = self._single(block, body, right, value)
                elif value.op == "call" and self._is_numeric_call(value.func):
                    value.args = tuple(
                        argument
                        if self._integer(argument) is None
                        else self._single(block, body, self._integer(argument), value)
                        for argument in value.args
                    )
            body.append(statement)
        block.body = body

    def _single(self, block: Any, body: list[Any], number: Any, at: Any) -> Any:
        variable = block.scope.redefine("sdesim_const", loc=at.loc)
        constant = self.ir.Const(np.float32(number), at.loc)
        self.func_ir._definitions[variable.name] = [constant]
        body.append(self.ir.Assign(constant, variable, at.loc))
        return variable

    def _definition(self, variable: Any) -> Any:
        """The constant that a variable stands for, or None."""
        definitions = self.func_ir._definitions.get(getattr(variable, "name", None), [])
        if len(definitions) == 1 and isinstance(definitions[0], self.constants):
            return definitions[0].value
        return None

    def _integer(self, variable: Any) -> Any:
        value = self._definition(variable)
        return value if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else None

    def _counts(self, variable: Any, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a variable holds an integer: a constant, a loop counter, a length, or what is computed from those."""
        if variable.name in seen:
            return True  # it is one as long as nothing else says no
        seen |= {variable.name}

        def one(value: Any) -> bool:
            if isinstance(value, self.ir.Var):
                return self._counts(value, seen)
            if isinstance(value, self.constants):
                return isinstance(value.value, (int, np.integer)) and not isinstance(value.value, bool)
            if not isinstance(value, self.ir.Expr):
                return False
            if value.op in ("binop", "inplace_binop"):
                return value.fn in _WHOLE and self._counts(value.lhs, seen) and self._counts(value.rhs, seen)
            if value.op in ("getitem", "static_getitem", "exhaust_iter"):
                return any(self._is_getattr(d, "shape") for d in self.func_ir._definitions.get(value.value.name, []))
            if value.op == "call":
                return self._definition(value.func) in (len, range)
            if value.op in ("pair_first", "iternext", "getiter", "cast"):
                return self._counts(value.value, seen)
            return value.op == "getattr" and value.attr in ("size", "ndim")

        definitions = self.func_ir._definitions.get(variable.name, [])
        return bool(definitions) and all(one(value) for value in definitions)

    def _is_getattr(self, value: Any, name: str) -> bool:
        return isinstance(value, self.ir.Expr) and value.op == "getattr" and value.attr == name

    def _is_numeric_call(self, function: Any) -> bool:
        if self._definition(function) in (abs, max, min, *self.functions.values()):
            return True
        definitions = self.func_ir._definitions.get(function.name, [])
        if len(definitions) != 1 or not self._is_getattr_of_any(definitions[0]):
            return False
        return self._definition(definitions[0].value) in (np, math)

    def _is_getattr_of_any(self, value: Any) -> bool:
        return isinstance(value, self.ir.Expr) and value.op == "getattr"
