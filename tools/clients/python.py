"""Writes the generated half of the Python client, ``values.py`` and ``resources.py`` of ``data_layer.client``.

A schema becomes a class of values, an operation a method of the resource that it belongs to. Names follow from those of
the handlers; where that gives the same name twice, or a poor one, ``NAMES`` has a better one.
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from clients.schemas import Schema, resolved

FOLDER = Path(__file__).parents[2] / "src" / "data_layer" / "client"

NAMES = {
    "GET /v1/sessions": "sessions.list",
    "GET /v1/oidc": "sessions.list_issuers",
    "GET /v1/variants/{variant_id}/preview": "variants.preview",
    "GET /v1/design-systems": "design_systems.list",
    "GET /v1/projects/{project_id}/thumbnail": "projects.thumbnail",
}
"""Resource and method of operations whose handlers have other names."""

GROUPS = {"administration": "admin"}
"""Resources that are called otherwise than the section of the documentation."""

LEFT_OUT = re.compile(
    r"GET /v1/oidc/.+|POST /v1/.+/identities/.+/link|GET /[asp]/.+|(GET|PUT) /v1/files/.+|GET /(livez|readyz|health)"
    r"|GET .+/events|POST /v1/tokens.*"
)
"""What browsers, signed addresses and probes are for, and what ``extensions`` does better."""

EXTENSIONS = {"generations": "GenerationStreams", "assets": "DirectUploads"}
"""The classes of ``extensions`` that resources add to."""

_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_FORMATS = {"date-time": "datetime", "date": "date"}
_UNSET = "UNSET"
_CURSORS = ("after", "before")
_WIDTH = 100
_METHODS = ("get", "post", "put", "patch", "delete")
_HEADING = '''"""{title}

Written by `make clients` from docs/reference/openapi.json; changes here are lost.
"""

from __future__ import annotations

'''


@dataclass(frozen=True)
class Parameter:
    """An argument of a method.

    Attributes:
        name: in Python.
        sent: as the service calls it.
        kind: its type.
        default: as it is written; None: it must be given.
    """

    name: str
    sent: str
    kind: str
    default: str | None

    @property
    def declared(self) -> str:
        """As it stands in the signature."""
        return f"{self.name}: {self.kind}" + ("" if self.default is None else f" = {self.default}")


class Types:
    """Writes schemas as types.

    Args:
        document: the description of the API.
        is_answer: whether values come from the service, which may know more of them than the client.
    """

    def __init__(self, document: Schema, *, is_answer: bool) -> None:
        self._schemas: Mapping[str, Schema] = document["components"]["schemas"]
        self._is_answer = is_answer
        self.used: set[str] = set()

    def of(self, schema: Schema) -> str:
        """The type of a schema."""
        if "$ref" in schema:
            return self._named(schema["$ref"].rpartition("/")[2])
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return self._union([self.of(each) for each in choices], [each.get("type") for each in choices])
        if "const" in schema or "enum" in schema:
            return f"Literal[{', '.join(map(quoted, schema.get('enum') or [schema['const']]))}]"
        return self._plain(schema)

    def _plain(self, schema: Schema) -> str:
        kind = schema.get("type")
        if kind == "array":
            if "prefixItems" in schema:
                return f"tuple[{', '.join(map(self.of, schema['prefixItems']))}]"
            return f"Sequence[{self.of(schema.get('items', {}))}]"
        if kind == "object":
            others = schema.get("additionalProperties")
            return f"Mapping[str, {self.of(others) if isinstance(others, Mapping) else 'Any'}]"
        if schema.get("format") == "uuid":
            return "UUID" if self._is_answer else "UUID | str"
        return _FORMATS.get(schema.get("format", "")) or _TYPES.get(str(kind), "Any")

    def _named(self, name: str) -> str:
        self.used.add(name)
        # A newer service may answer with a value that this client does not know.
        return f"{name} | str" if self._is_answer and "enum" in self._schemas[name] else name

    def _union(self, kinds: list[str], types: list[str | None]) -> str:
        if {"number", "string"} <= set(types):
            kinds = ["Decimal", *kinds]  # An amount: a float is not exact.
        parts = dict.fromkeys(part for kind in kinds for part in kind.split(" | "))
        return " | ".join([*(each for each in parts if each != "None"), *(["None"] if "None" in parts else [])])


def quoted(value: Any) -> str:
    """A value as Python writes it."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def documented(text: str, indent: str) -> str:
    """A docstring."""
    paragraphs = [_wrapped(each) for each in re.split(r"\n\s*\n", text.strip())]
    body = "\n\n".join(paragraphs).replace("\n", f"\n{indent}")
    body = re.sub(r"[ \t]+\n", "\n", body)
    return f'{indent}"""{body}{chr(10) + indent if len(paragraphs) > 1 or chr(10) in body else ""}"""\n'


def _wrapped(paragraph: str) -> str:
    is_list = re.match(r"\s*\w+:\n", paragraph)
    return paragraph if is_list else fill(" ".join(paragraph.split()), _WIDTH, break_on_hyphens=False)


def values(document: Schema) -> str:
    """The module ``values``."""
    schemas: Mapping[str, Schema] = document["components"]["schemas"]
    wanted = _reachable(document)
    enums = sorted(name for name in wanted if "enum" in schemas[name])
    types = Types(document, is_answer=True)
    lines = []
    for name in enums:
        lines.append(f"{name} = Literal[{', '.join(map(quoted, schemas[name]['enum']))}]\n")
        if text := schemas[name].get("description"):
            lines.append(documented(text, ""))
    for name in sorted(wanted - set(enums)):
        lines.append(f"\n\nclass {name}(Answer):\n")
        lines.append(
            documented(schemas[name].get("description") or f"See ``{name}`` in the description of the API.", "    ")
        )
        lines.append("\n")
        required = schemas[name].get("required", ())
        lines += [
            f"    {_field(types, field, schema, field in required)}\n"
            for field, schema in schemas[name]["properties"].items()
        ]
    body = "".join(lines)
    return (
        _HEADING.format(title="The values that the API answers and takes.")
        + _imports(body, "from data_layer.client.base import Answer")
        + body
    )


def _field(types: Types, name: str, schema: Schema, is_required: bool) -> str:  # noqa: FBT001  (one caller)
    kind = types.of(schema)
    if is_required:
        return f"{name}: {kind}"
    default = schema.get("default")
    if isinstance(default, Mapping | list) or (default is None and kind.startswith(("Sequence", "Mapping"))):
        return f"{name}: {kind} = Field(default_factory={'list' if kind.startswith('Sequence') else 'dict'})"
    if default is None:
        return f"{name}: {kind}{'' if kind == 'Any' or kind.endswith('None') else ' | None'} = None"
    return f"{name}: {kind} = {quoted(default)}"


def _reachable(document: Schema) -> set[str]:
    """The schemas in answers, and those within bodies, whose own fields become arguments."""
    schemas: Mapping[str, Schema] = document["components"]["schemas"]
    waiting: list[Any] = ["StartedGeneration"]
    for name, operation in operations(document):
        if LEFT_OUT.fullmatch(name):
            continue
        waiting += [
            answer.get("content", {}).get("application/json", {})
            for status, answer in operation["responses"].items()
            if status < "400"
        ]
        waiting.append(operation.get("parameters", []))
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        waiting.append(resolved(document, body).get("properties", {}))
    found: set[str] = set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, str) and each.startswith("#/components/schemas/"):
            name = each.rpartition("/")[2]
            if name not in found:
                found.add(name)
                waiting.append(schemas[name])
    return found


def operations(document: Schema) -> Iterator[tuple[str, Schema]]:
    """Each operation with its name, such as ``GET /v1/projects``."""
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield f"{method.upper()} {path}", methods[method]


def placed(name: str, operation: Schema) -> tuple[str, str]:
    """The resource and the method of an operation."""
    if name in NAMES:
        group, _, method = NAMES[name].partition(".")
        return group, method
    path = name.partition(" ")[2]
    slug = re.sub(r"\W", "_", path)
    handler = operation["operationId"].removesuffix(f"_{name.partition(' ')[0].lower()}").removesuffix(slug)
    tag = operation["tags"][0]
    group = "budgets" if path.startswith("/v1/budgets") else GROUPS.get(tag) or re.sub(r"\W+", "_", tag.lower())
    own = (f"_{group}", f"_{group.removesuffix('s')}")
    for suffix in own:
        handler = handler.removesuffix(suffix)
    method = {"show": "get", "read": "get"}.get(handler, handler)
    return group, f"{method}_" if keyword.iskeyword(method) else method


def resources(document: Schema) -> str:
    """The module ``resources``."""
    types, answers = Types(document, is_answer=False), Types(document, is_answer=True)
    groups: dict[str, dict[str, str]] = {}
    for name, operation in operations(document):
        if LEFT_OUT.fullmatch(name):
            continue
        group, method = placed(name, operation)
        if method in groups.setdefault(group, {}):
            sys.exit(f"{group}.{method} would be two operations, the second one {name}: name it in NAMES of {__file__}")
        groups[group][method] = _method(document, (types, answers), name, method, operation)
    body = ""
    for group, methods in sorted(groups.items()):
        base = EXTENSIONS.get(group, "Resource")
        body += f"\n\nclass {_class(group)}({base}):\n" + documented(
            f"Calls of the section *{group.replace('_', ' ')}*.", "    "
        )
        body += "\n    __slots__ = ()\n" + "".join(f"\n{text}" for _, text in sorted(methods.items()))
    body += "\n\nclass Resources:\n" + documented("All resources of the API.", "    ")
    body += "\n    def __init__(self, transport: Transport) -> None:\n        self.transport = transport\n"
    body += "".join(f"        self.{group} = {_class(group)}(transport)\n" for group in sorted(groups))
    named = sorted(name for name in types.used | answers.used if re.search(rf"\b{name}\b", body))
    mine = "\n".join(
        [
            "from data_layer.client.downloads import Download, Pages, path_value",
            f"from data_layer.client.extensions import {', '.join(sorted({*EXTENSIONS.values(), 'Resource'}))}",
            "from data_layer.client.transport import UNSET, Call, File, Transport, Unset, new_key",
            f"from data_layer.client.values import ({', '.join(named)})",
        ]
    )
    return _HEADING.format(title="The calls of the API.") + _imports(body, mine) + body


def _class(group: str) -> str:
    return "".join(part.capitalize() for part in group.split("_")) + "Calls"


def _method(document: Schema, kinds: tuple[Types, Types], name: str, method: str, operation: Schema) -> str:
    types, answers = kinds
    verb, _, path = name.partition(" ")
    parameters = operation.get("parameters", [])
    kind, cursor = _answer(document, answers, operation)
    in_path = [_parameter(types, each) for each in parameters if each["in"] == "path"]
    query = [
        _parameter(types, each)
        for each in parameters
        if each["in"] == "query" and not (each["name"] == "format" and kind != "Download")
    ]
    headers = [_parameter(types, each) for each in parameters if each["in"] == "header"]
    content = operation.get("requestBody", {}).get("content", {})
    fields = list(_fields(document, types, content, {each.name for each in in_path}))
    is_form = "multipart/form-data" in content
    keys = [each for each in headers if each.sent == "Idempotency-Key"]
    named = [
        *fields,
        *([Parameter("file", "file", "File | None", "None")] if is_form else []),
        *(each for each in query if each.sent != cursor),
        *headers,
    ]
    named.sort(key=lambda each: each.default is not None)
    shown = [each.declared for each in in_path] + (["*", *(each.declared for each in named)] if named else [])
    sent = {"query": query, "headers": headers, "body": fields}
    entries = {
        part: "{" + ", ".join(f'"{each.sent}": {_value(each)}' for each in given) + "}"
        for part, given in sent.items()
        if given or (part == "body" and content)
    }
    template = re.sub(r"\{(\w+)\}", lambda found: "{path_value(" + found[1] + ")}", path)
    call = f'Call("{verb}", {"f" if in_path else ""}"{template}"'
    call += "".join(f", {part}={text}" for part, text in entries.items())
    call += ", file=file" if is_form else ""
    call += ", follow_redirects=True" if kind == "Download" else ""
    call += "" if operation.get("security") else ", needs_login=False"
    call += ")"
    description = f"{operation['summary']}.\n\n{operation.get('description', '')}"
    if keys:
        description += "\n\nIt is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``."
    head = f"{method}({', '.join(['self', *shown])})"
    return _definition(head, kind, cursor, call, documented(description, "        "))


def _definition(head: str, kind: str, cursor: str | None, call: str, docstring: str) -> str:
    if cursor is not None:
        page, items, item = kind.split(":")
        return (
            f"    def {head} -> Pages[{item}, {page}]:\n{docstring}\n"
            f"        async def fetch({cursor}: Any) -> {page}:\n"
            f"            return await self.transport.send({page}, {call})\n\n"
            f"        return Pages(fetch, lambda page: page.{items})\n"
        )
    if kind == "Download":
        return f"    def {head} -> Download:\n{docstring}        return Download(self.transport, {call})\n"
    ending = {
        "None": f"await self.transport.respond({call})",
        "str": f"return (await self.transport.respond({call})).text",
    }.get(kind, f"return await self.transport.send({kind}, {call})")
    return f"    async def {head} -> {kind}:\n{docstring}        {ending}\n"


def _value(parameter: Parameter) -> str:
    return "idempotency_key or new_key()" if parameter.sent == "Idempotency-Key" else parameter.name


def _parameter(types: Types, described: Schema) -> Parameter:
    name = described["name"].lower().replace("-", "_")
    kind = types.of(described["schema"])
    if name == "if_match" and described.get("required"):
        return Parameter(name, described["name"], "str | None", None)
    if described.get("required"):
        return Parameter(name, described["name"], kind, None)
    return Parameter(name, described["name"], kind if kind.endswith("None") else f"{kind} | None", "None")


def _fields(document: Schema, types: Types, content: Schema, taken: set[str]) -> Iterator[Parameter]:
    """The fields of a body; what a form need not have, is optional."""
    schema = resolved(document, content.get("application/json", {}).get("schema", {}))
    required = set(schema.get("required", ()))
    if "multipart/form-data" in content:
        form = content["multipart/form-data"]["schema"]["properties"].get("data", {})
        required &= set(resolved(document, form).get("required", ()))
    for field, described in schema.get("properties", {}).items():
        kind = types.of(described)
        name = f"{field}_" if keyword.iskeyword(field) or field in taken else field
        if field in required:
            yield Parameter(name, field, kind, None)
        else:
            optional = f"{kind.removesuffix(' | None')} | Unset" + (" | None" if kind.endswith("None") else "")
            yield Parameter(name, field, optional, _UNSET)


def _answer(document: Schema, answers: Types, operation: Schema) -> tuple[str, str | None]:
    """What a call returns; of a page its class, its list and what is in that, and the parameter of the cursor."""
    good = {status: answer.get("content", {}) for status, answer in operation["responses"].items() if status < "400"}
    # Where a login may need a second factor, 200 says so, and 201 is what is hoped for.
    json = next(
        (
            good[status]["application/json"]["schema"]
            for status in sorted(good, reverse=True)
            if "application/json" in good[status]
        ),
        None,
    )
    if json is None:
        if any("text/plain" in content for content in good.values()):
            return "str", None
        return ("None" if set(good) == {"204"} else "Download"), None
    kind = answers.of(json)
    page = resolved(document, json).get("properties", {})
    cursor = next((each["name"] for each in operation.get("parameters", []) if each["name"] in _CURSORS), None)
    if "next" not in page or cursor is None:
        return kind, None
    items = next(name for name, schema in page.items() if schema.get("type") == "array")
    return f"{kind}:{items}:{answers.of(page[items]['items'])}", cursor


def _imports(body: str, mine: str) -> str:
    """What a module needs, of what it may need."""
    wanted = {
        "collections.abc": ("Mapping", "Sequence"),
        "datetime": ("date", "datetime"),
        "decimal": ("Decimal",),
        "typing": ("Any", "Literal"),
        "uuid": ("UUID",),
        "pydantic": ("Field",),
    }
    found = {module: [name for name in names if re.search(rf"\b{name}\b", body)] for module, names in wanted.items()}
    lines = [f"from {module} import {', '.join(names)}" for module, names in found.items() if names]
    return (
        "\n".join(each for each in lines if "pydantic" not in each)
        + "\n\n"
        + "\n".join(each for each in lines if "pydantic" in each)
        + f"\n\n{mine}\n\n"
    )


def formatted(text: str) -> str:
    """As the formatter writes it."""
    ruff = Path(sys.executable).with_name("ruff")
    pyproject = FOLDER.parents[2] / "pyproject.toml"
    for command in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
        arguments = [str(ruff), *command, "--config", str(pyproject), "--stdin-filename", str(FOLDER / "made.py"), "-"]
        text = subprocess.run(arguments, input=text, capture_output=True, text=True, check=True).stdout
    return text


def modules(document: Schema) -> dict[str, str]:
    """The generated modules by the names of their files."""
    return {"values.py": formatted(values(document)), "resources.py": formatted(resources(document))}


def write(document: Schema) -> None:
    """Write them."""
    for name, text in modules(document).items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"Wrote {FOLDER / name}")
