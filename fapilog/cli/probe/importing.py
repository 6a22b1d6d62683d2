"""Import strings as servers take them: ``module``, ``module:name``, ``module:name.attribute``, ``module:factory("argument")``."""

from __future__ import annotations

import ast
import importlib
import re
from typing import Any

from fapilog.errors import ConfigurationError

DEFAULT = "application"  # what Gunicorn looks for in a module
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def parsed(target: str) -> tuple[str, ast.expr]:
    """
    Return the module of an import string, and what is meant in it.

    Raises:
        ConfigurationError: It is no import string.
    """
    module, _, name = target.partition(":")
    rule = (
        f"{target!r} is no import string: write the application as your server gets it, such as app:app or shop.web:create_app()"
    )
    try:
        found = ast.parse((name or DEFAULT).strip(), mode="eval").body
    except SyntaxError:
        raise ConfigurationError(rule) from None
    called = found.func if isinstance(found, ast.Call) else found
    while isinstance(called, ast.Attribute):
        called = called.value
    looks_like_a_file = module.endswith(".py") or "/" in module
    if looks_like_a_file or not _MODULE.fullmatch(module) or not isinstance(called, ast.Name):
        raise ConfigurationError(rule)
    return module, found


def load(target: str) -> Any:
    """
    Import the module and return what is meant; a factory is called, as a server would.

    Raises:
        Exception: Whatever the module or the factory raises.
    """
    module, name = parsed(target)
    return _value(importlib.import_module(module), name)


def _value(module: Any, name: ast.expr) -> Any:
    if isinstance(name, ast.Call):
        arguments = [ast.literal_eval(each) for each in name.args]
        keywords = {str(each.arg): ast.literal_eval(each.value) for each in name.keywords}
        return _value(module, name.func)(*arguments, **keywords)
    if isinstance(name, ast.Attribute):
        return getattr(_value(module, name.value), name.attr)
    assert isinstance(name, ast.Name)
    return getattr(module, name.id)
