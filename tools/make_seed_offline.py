"""Let the example pages look as they should where their libraries cannot be loaded.

`python tools/make_seed_offline.py` rewrites those parts; run it after a change to a page, and look at the result.

The pages of the example data load Tailwind, Bootstrap, React and so on from a CDN, as a screenshot-to-code application
returns them. Behind a firewall they would be bare. So each page ends with a part, written by this script, that holds
the
rules that the page uses, and of a page that a script renders also what it renders, which is shown only for as long as
the script has rendered nothing. The page itself stays as it is.

It needs Chromium and npm packages; see render_seed_screenshots.py.
"""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote

from make_screenshots import CDN, packages
from playwright.async_api import Browser, async_playwright
from render_seed_screenshots import DEFAULT_CACHE, SEED_DATA, PackageCache

BEGIN = "<!-- How it looks where the libraries cannot be loaded -->"
END = "<!-- / -->"
ICONS = "bootstrap-icons@1.13.2"
PART = re.compile(rf"\n*{re.escape(BEGIN)}.*?{re.escape(END)}\n*", re.DOTALL)
SETTLED = 2_500

# Collects the rules of other hosts and of Tailwind that something on the page uses, one in a line.
COLLECT = r"""
() => {
  const own = new Set([...document.querySelectorAll("style[data-own]")].map((e) => e.sheet));
  const plain = (selector) => selector
    .replace(/::?(before|after|placeholder|marker|selection|backdrop|file-selector-button)/g, "")
    .replace(/::?-(webkit|moz)-[\w-]+(\([^)]*\))?/g, "")
    .replace(/:(hover|focus|focus-visible|focus-within|active|visited|disabled|checked|invalid|open|target)\b/g, "")
    .replace(/:not\(\s*\)|:is\(\s*\)|:where\(\s*\)/g, "");
  const used = (selector) => {
    if (/^(:root|:host|html|body|\*)/.test(selector.trim())) return true;
    try { return document.querySelector(plain(selector) || "*") !== null; } catch { return false; }
  };
  const take = (rules) => {
    const lines = [];
    for (const rule of rules) {
      if (rule instanceof CSSFontFaceRule) continue;
      if (rule instanceof CSSImportRule) {
        const inner = take(rule.styleSheet?.cssRules ?? []);
        if (inner.length) lines.push(...(rule.layerName ? [`@layer ${rule.layerName} {`, ...inner, "}"] : inner));
      } else if (rule instanceof CSSStyleRule) {
        const selectors = rule.selectorText.split(/,(?![^(]*\))/).filter(used);
        if (selectors.length) lines.push(rule.cssText.replace(/\s*\n\s*/g, " "));
      } else if (rule.cssRules && !(rule instanceof CSSKeyframesRule)) {
        const inner = take(rule.cssRules);
        const head = rule.cssText.slice(0, rule.cssText.indexOf("{")).trim();
        if (inner.length) lines.push(`${head} {`, ...inner, "}");
      } else lines.push(rule.cssText.replace(/\s*\n\s*/g, " "));
    }
    return lines;
  };
  const tailwind = [], others = [];
  for (const sheet of document.styleSheets) {
    if (own.has(sheet)) {
      for (const rule of sheet.cssRules) if (rule instanceof CSSImportRule) tailwind.push(...take([rule]));
      continue;
    }
    if (sheet.href && /fontsource/.test(sheet.href)) continue;
    (sheet.href ? others : tailwind).push(...take(sheet.cssRules));
  }
  const marked = [...document.querySelectorAll("[class*='bi-']")];
  const icons = [...new Set(marked.flatMap((e) => [...e.classList]).filter((n) => n.startsWith("bi-")))];
  const root = document.querySelector("#root, #app");
  const scripted = document.querySelector("script[type='text/babel'], script[src*='vue']");
  const rendered = root && scripted ? root.innerHTML : null;
  return { tailwind, others, icons, rendered, root: root?.id ?? null };
}
"""


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
    """Icons as masks, in place of a font."""
    rules = []
    for name in sorted(names):
        file = cache.file(ICONS, f"icons/{name.removeprefix('bi-')}.svg")
        if file is None:
            continue
        drawing = quote(re.sub(r"\s+", " ", file.read_text(encoding="utf-8")).strip(), safe=" =:/,.-'()")
        rules.append(f'.{name}::before {{ mask: url("data:image/svg+xml,{drawing}") center / contain no-repeat; }}')
    if rules:
        shape = 'content: ""; display: inline-block; width: 1em; height: 1em; vertical-align: -0.125em'
        rules.insert(
            0, f".bi::before, [class*=' bi-']::before, [class^='bi-']::before {{ {shape}; background: currentColor; }}"
        )
    return rules


async def part_of(browser: Browser, source: str, cache: PackageCache) -> str:
    """What a page ends with."""
    page = await browser.new_page(viewport={"width": 1280, "height": 860})
    marked = re.sub(r"<style>", "<style data-own>", source)
    await page.route(
        "https://seed.invalid/", lambda route: route.fulfill(body=marked, content_type="text/html; charset=utf-8")
    )
    await page.route(re.compile("fontsource"), lambda route: route.abort())  # There are fonts everywhere.
    await page.goto("https://seed.invalid/", wait_until="load")
    await page.wait_for_timeout(SETTLED)
    found = await page.evaluate(COLLECT)
    await page.close()
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
    body = ""
    if found["rendered"]:
        name = found["root"]
        shown = f"#{name}:not(:empty)" if name == "root" else f"#{name}:not([v-cloak])"
        rules += [f"{shown} ~ .without-libraries, [v-cloak] {{ display: none; }}"]
        body = f'<div class="without-libraries">{found["rendered"]}</div>\n'
    if not rules:
        return ""
    return f"{BEGIN}\n{body}<style>\n" + "\n".join(rules) + f"\n</style>\n{END}\n"


async def main() -> None:
    """Write the part of every page that loads something."""
    cache = PackageCache(DEFAULT_CACHE)
    with packages() as port:
        flags = [
            "--no-sandbox",
            "--disable-web-security",
            f"--host-resolver-rules=MAP {CDN} 127.0.0.1:{port}",
            "--ignore-certificate-errors",
        ]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
            for file in sorted((SEED_DATA / "pages").glob("*/*.html")):
                source = PART.sub("\n", file.read_text(encoding="utf-8"))
                if f"https://{CDN}/" not in source or "@ionic" in source:
                    continue
                part = await part_of(browser, source, cache)
                if "vue" in source and "v-cloak" not in source:
                    source = source.replace('<div id="app"', '<div id="app" v-cloak', 1)
                if "</body>" not in source:
                    print("no body", file)
                    continue
                if not part:
                    file.write_text(source, encoding="utf-8")
                    continue
                at = source.rindex("</body>")
                file.write_text(source[:at].rstrip() + "\n\n" + part + source[at:], encoding="utf-8")
                print(f"{file.relative_to(SEED_DATA)}: {len(part) / 1024:.1f} KiB")
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
