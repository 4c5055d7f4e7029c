"""Links in the description of the API (OpenAPI): what can be done with what was created, by the id in the answer.

Tools follow them, such as those that test an API along what one answer leads to.
"""

from __future__ import annotations

from typing import Any

_CREATED: dict[str, dict[str, str]] = {
    "AddedApp": {"factor_id": "/id"},
    "AddedFactor": {"factor_id": "/factor/id"},
    "AssetView": {"asset_id": "/id"},
    "CreatedKey": {"key_id": "/api_key/id"},
    "CreatedShare": {"share_id": "/share/id"},
    "DesignSystemView": {"design_id": "/id"},
    "DirectUpload": {"upload_id": "/id"},
    "ExportView": {"export_id": "/id"},
    "GeneratedImageFull": {"image_id": "/id"},
    "ProjectFull": {"project_id": "/id"},
    "StartedGeneration": {
        "generation_id": "/id",
        "variant_id": "/variant_ids/0",
        "Writer-Token": "/writer_token",
    },
}
"""Which parameters take what from the body of an answer, by its schema."""


def add_links(description: dict[str, Any]) -> None:
    """Add to each answer for something that was created where it leads."""
    operations = [each for methods in description["paths"].values() for each in methods.values()]
    for operation in operations:
        created = operation["responses"].get("201", {})
        values = _CREATED.get(_schema_of(created), {})
        links = {each["operationId"]: _link(each, values) for each in operations if _takes(each, values)}
        if links:
            created["links"] = links


def _schema_of(answer: dict[str, Any]) -> str:
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _takes(operation: dict[str, Any], values: dict[str, str]) -> bool:
    """Whether an operation is about what was created."""
    return any(each["in"] == "path" and each["name"] in values for each in operation.get("parameters", ()))


def _link(operation: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:
    names = [each["name"] for each in operation["parameters"] if each["name"] in values]
    return {
        "operationId": operation["operationId"],
        "description": operation["summary"],
        "parameters": {name: f"$response.body#{values[name]}" for name in names},
    }
