"""Options of a command, made of the fields of a record of settings."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from mmm.setting import Field, fields_of


def options_of(
    record: type, *names: str, optional: bool = False, **helps: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for each of these fields, in the place of its parameter `given`,
    which gets the values by the fields' names; what is None is left out.

    `optional`: no option has a default. `helps` say of a field what its own help does not.
    """
    fields = {name: fields_of(record)[name] for name in names or fields_of(record)}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            given = {name: values.pop(name) for name in fields}
            given = {name: value for name, value in given.items() if value is not None}
            for name, value in given.items():
                if (parse := fields[name].setting.parse) is not None:
                    given[name] = parse(value)
            function(**values, given=given)

        signature = inspect.signature(function)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name == "given":
                parameters += (
                    _parameter(name, field, optional, helps.get(name, field.setting.help))
                    for name, field in fields.items()
                )
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        told = signature.replace(parameters=parameters)
        command.__signature__ = told  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(name: str, field: Field, optional: bool, text: str) -> inspect.Parameter:
    setting = field.setting
    default = field.default if setting.default is ... else setting.default
    kind: Any = str if setting.parse is not None else field.kind
    if optional or default in (None, dataclasses.MISSING):
        kind, default = kind | None, None
    flag = setting.flag or f"--{name.replace('_', '-')}"
    option = typer.Option(flag, help=text, metavar=setting.metavar)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )
