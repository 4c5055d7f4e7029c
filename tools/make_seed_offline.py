"""Let the example pages look as they should where their libraries cannot be loaded.

`python tools/make_seed_offline.py [PROJECT...]` rewrites those parts; run it after a change to a page, and look at the
result.

The pages of the example data load Tailwind, Bootstrap, React and so on from a CDN, as a screenshot-to-code application
returns them. Behind a firewall they would be bare. So each page ends with a part, written by this script, that holds
the rules that the page uses, and of a page that a script renders also what it renders, which is shown only for as long
as the script has rendered nothing. Ionic's components have styles of their own; for as long as they are not defined,
the rules of seed_offline/ionic.css stand for these. The page itself stays as it is.

It needs Chromium and npm packages; see render_seed_screenshots.py.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from make_screenshots import CDN, packages
from playwright.async_api import Browser, async_playwright
from render_seed_screenshots import DEFAULT_CACHE, SEED_DATA, PackageCache

BEGIN = "<!-- How it looks where the libraries cannot be loaded -->"
END = "<!-- / -->"
ICONS = "bootstrap-icons@1.13.2"
DRAWINGS = "ionicons@7.3.1"
PART = re.compile(rf"\n*{re.escape(BEGIN)}.*?{re.escape(END)}\n*", re.DOTALL)
SETTLED = 2_500

HERE = Path(__file__).parent / "seed_offline"
COLLECT = (HERE / "collect.js").read_text(encoding="utf-8")
IONIC = (HERE / "ionic.css").read_text(encoding="utf-8").splitlines()


def pruned(lines: list[str]) -> list[str]:
    """Without variables, properties and animations that no rule uses."""
    while True:
        text = "\n".join(lines)
        used = set(re.findall(r"var\(\s*(--[\w-]+)", text))
        kept = []
        for line in lines:
            if match := re.match(r"@property (--[\w-]+)", line):
                if match[1] not in used:
                    continue
            elif match := re.match(r"@keyframes ([\w-]+)", line):
                if not re.search(
                    rf"animation[^;]*\b{re.escape(match[1])}\b|: {re.escape(match[1])} ", text.replace(line, "")
                ):
                    continue
            elif line.startswith((":root", ":host", "html", "[data-bs-theme", "*")) and "{" in line and "}" in line:
                head, _, body = line.partition("{")
                declared = [
                    each.strip() for each in re.split(r";(?![^(\"]*[)\"])", body.rpartition("}")[0]) if each.strip()
                ]
                wanted = [
                    each for each in declared if not each.startswith("--") or each.partition(":")[0].strip() in used
                ]
                if not wanted:
                    continue
                kept.append(f"{head}{{ {'; '.join(wanted)}; }}")
                continue
            kept.append(line)
        if kept == lines:
            return [line for line in kept if not re.fullmatch(r"[^{}]*\{\s*\}", line)]
        lines = kept


def icon_rules(names: list[str], cache: PackageCache) -> list[str]:
    """Bootstrap's icons as masks, in place of a font."""
    masks = {name: mask_of(cache, ICONS, f"icons/{name.removeprefix('bi-')}.svg") for name in sorted(names)}
    rules = [f".{name}::before {{ {mask} }}" for name, mask in masks.items() if mask]
    if rules:
        shape = 'content: ""; display: inline-block; width: 1em; height: 1em; vertical-align: -0.125em'
        rules.insert(
            0, f".bi::before, [class*=' bi-']::before, [class^='bi-']::before {{ {shape}; background: currentColor; }}"
        )
    return rules


def drawing_rules(names: list[str], cache: PackageCache) -> list[str]:
    """Ionic's icons as masks, in place of a component."""
    masks = {name: mask_of(cache, DRAWINGS, f"dist/ionicons/svg/{name}.svg") for name in sorted(names)}
    rules = [*IONIC, "ion-icon:not(:defined) { background: currentColor; }"]
    rules += [f"ion-icon[name={name}]:not(:defined) {{ {mask} }}" for name, mask in masks.items() if mask]
    return ["@layer ionic {", *rules, "}"]


def mask_of(cache: PackageCache, package: str, path: str) -> str | None:
    """A drawing of a package as a mask; None if the package has none of this name."""
    file = cache.file(package, path)
    if file is None:
        return None
    # The strokes of Ionic's drawings come from a style sheet, which a mask does not have.
    drawing = re.sub(r"\s+", " ", file.read_text(encoding="utf-8")).strip()
    drawing = drawing.replace('class="ionicon-fill-none ionicon-stroke-width"', 'fill="none" stroke-width="32"')
    drawing = re.sub(r"<(path|rect|circle|ellipse|line|polyline) (?=[^>]*stroke-width)", r'<\1 stroke="#000" ', drawing)
    escaped = quote(drawing, safe=" =:/,.-'()")
    return f'mask: url("data:image/svg+xml,{escaped}") center / contain no-repeat;'


async def part_of(browser: Browser, source: str, cache: PackageCache) -> str:
    """What a page ends with."""
    found = await collected(browser, source)
    rules = pruned(found["tailwind"])
    # Below the page's own rules, whatever their order.
    other = [
        line
        for line in pruned(found["others"])
        if "bootstrap-icons" not in line and not re.match(r"\.bi-[\w-]+::before", line)
    ]
    other += icon_rules(found["icons"], cache)
    if other:
        rules += ["@layer library {", *other, "}"]
    if found["drawings"]:
        rules += drawing_rules(found["drawings"], cache)
    body = ""
    if found["rendered"]:
        name = found["root"]
        shown = f"#{name}:not(:empty)" if name == "root" else f"#{name}:not([v-cloak])"
        rules += [f"{shown} ~ .without-libraries, [v-cloak] {{ display: none; }}"]
        body = f'<div class="without-libraries">{found["rendered"]}</div>\n'
    if not rules:
        return ""
    return f"{BEGIN}\n{body}<style>\n" + "\n".join(rules) + f"\n</style>\n{END}\n"


async def collected(browser: Browser, source: str) -> dict[str, Any]:
    """What a browser finds on a page that has its libraries."""
    page = await browser.new_page(viewport={"width": 1280, "height": 860})
    marked = re.sub(r"<style>", "<style data-own>", source)
    await page.route(
        "https://seed.invalid/", lambda route: route.fulfill(body=marked, content_type="text/html; charset=utf-8")
    )
    await page.route(re.compile("fontsource"), lambda route: route.abort())  # There are fonts everywhere.
    await page.goto("https://seed.invalid/", wait_until="load")
    await page.wait_for_timeout(SETTLED)
    found: dict[str, Any] = await page.evaluate(COLLECT)
    await page.close()
    return found


def with_part(source: str, part: str) -> str:
    """A page that ends with a part."""
    if "vue" in source and "v-cloak" not in source:
        source = source.replace('<div id="app"', '<div id="app" v-cloak', 1)
    if not part:
        return source
    at = source.rindex("</body>")
    return source[:at].rstrip() + "\n\n" + part + source[at:]


def pages_of(projects: list[str]) -> dict[Path, str]:
    """The pages that load something, without the part that this script has written."""
    files = [file for file in sorted((SEED_DATA / "pages").glob("*/*.html")) if file.parent.name in projects]
    sources = {file: PART.sub("\n", file.read_text(encoding="utf-8")) for file in files}
    return {file: source for file, source in sources.items() if f"https://{CDN}/" in source}


async def main(pages: dict[Path, str]) -> None:
    """Write the parts of pages."""
    cache = PackageCache(DEFAULT_CACHE)
    flags = ["--no-sandbox", "--disable-web-security", "--ignore-certificate-errors"]
    with packages() as port:
        flags.append(f"--host-resolver-rules=MAP {CDN} 127.0.0.1:{port}")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
            parts = {file: await part_of(browser, source, cache) for file, source in pages.items()}
            await browser.close()
    for file, part in parts.items():
        file.write_text(with_part(pages[file], part), encoding="utf-8")
        print(f"{file.relative_to(SEED_DATA)}: {len(part) / 1024:.1f} KiB")


if __name__ == "__main__":
    asyncio.run(main(pages_of(sys.argv[1:] or [folder.name for folder in (SEED_DATA / "pages").iterdir()])))
