"""``data-layer images``: the images of projects, as a list and as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from data_layer.cli.codes import Replaces, write_bytes
from data_layer.cli.output import AsJson, counted, print_facts, print_json, print_table, run_with_data, say, size

if TYPE_CHECKING:
    from data_layer.layer import DataLayer
    from data_layer.schemas.images import GeneratedImageFull, ImagePage

_LONGEST_PROMPT = 40

commands = typer.Typer(help="Images of projects.", no_args_is_help=True)

ImageId = Annotated[UUID, typer.Argument(metavar="IMAGE", help="The id of the image.")]


@commands.command("list")
def list_images(
    project: Annotated[str, typer.Argument(help="The id or the name of the project.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of images.")] = 50,
    after: Annotated[UUID | None, typer.Option(help="Those after this image, the last one of another list.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the images of a project, the latest first."""

    async def work(data: DataLayer) -> ImagePage:
        from data_layer.schemas.actors import SYSTEM

        found = await data.projects.find(project)
        return await data.images.list(SYSTEM, found.id, after=after, limit=limit)

    page = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(page)
        return
    if not page.images:
        say("There are no images.")
        return
    more = f"; for more: --after {page.next}" if page.next else ""
    rows = [
        (
            *(image.id, image.kind, image.model or image.provider, image.status, image.size),
            *("" if image.file_size is None else size(image.file_size), _short(image.name or image.prompt)),
        )
        for image in page.images
    ]
    columns = ("Id", "Kind", "Model", "Status", "Size", "Bytes", "Name or prompt")
    print_table(counted(len(rows), "image") + more, columns, rows, right=("Bytes",))


@commands.command()
def show(image_id: ImageId, *, as_json: AsJson = False) -> None:
    """Show how an image was made."""

    async def work(data: DataLayer) -> GeneratedImageFull:
        from data_layer.schemas.actors import SYSTEM

        return await data.images.open(SYSTEM, image_id)

    image = run_with_data(work, as_json=as_json)
    if as_json:
        print_json(image)
        return
    facts = {
        "Name": image.name,
        "Project": image.project_id,
        "Kind": image.kind,
        "Model": f"{image.model} ({image.provider})" if image.model else image.provider,
        "Status": image.status,
        "Error": image.error_message,
        "Prompt": image.prompt,
        "Revised prompt": image.revised_prompt,
        "Asked for": image.size,
        "Pixels": image.width and f"{image.width} x {image.height}",
        "Type": image.mime_type,
        "Bytes": image.file_size and size(image.file_size),
        "Address": image.image_url,
        "Rating": image.rating and f"{image.rating} of 5",
        "Downloads": image.download_count,
        "Made": f"{image.created_at:%Y-%m-%d %H:%M}",
    }
    print_facts(f"Image {image.id}", {name: value for name, value in facts.items() if value})


@commands.command()
def save(
    image_id: ImageId,
    file: Annotated[Path, typer.Argument(help="Where to; - is standard output.")],
    *,
    force: Replaces = False,
    as_json: AsJson = False,
) -> None:
    """Write an image to a file, byte for byte; it is recorded as a download."""

    async def work(data: DataLayer) -> bytes:
        from data_layer.schemas.actors import SYSTEM

        return await data.images.download(SYSTEM, image_id)

    content = run_with_data(work, as_json=as_json)
    write_bytes(file, content, replaces=force)
    if file == Path("-"):
        return
    if as_json:
        print_json({"file": str(file), "size": len(content)})
    else:
        say(f"Wrote {size(len(content))} to {file}")


@commands.command()
def delete(
    image_id: ImageId,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove an image for good; its file goes too, unless something else needs it."""
    if not yes:
        typer.confirm(f"Remove the image {image_id} for good?", abort=True, err=True)

    async def work(data: DataLayer) -> None:
        from data_layer.schemas.actors import SYSTEM

        await data.images.delete(SYSTEM, image_id)

    run_with_data(work, as_json=as_json)
    if as_json:
        print_json({"deleted": image_id})
    else:
        say(f"Removed the image {image_id}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_PROMPT else f"{line[: _LONGEST_PROMPT - 1]}…"
