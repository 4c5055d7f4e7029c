// Collects the rules of other hosts and of Tailwind that something on the page uses, one in a line.
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
    if (sheet.ownerNode?.hasAttribute("data-styles")) continue;  // Hides Ionic's components until they are defined.
    (sheet.href ? others : tailwind).push(...take(sheet.cssRules));
  }
  const marked = [...document.querySelectorAll("[class*='bi-']")];
  const icons = [...new Set(marked.flatMap((e) => [...e.classList]).filter((n) => n.startsWith("bi-")))];
  const drawings = [...new Set([...document.querySelectorAll("ion-icon")].map((e) => e.getAttribute("name")))];
  const root = document.querySelector("#root, #app");
  const scripted = document.querySelector("script[type='text/babel'], script[src*='vue']");
  const rendered = root && scripted ? root.innerHTML : null;
  return { tailwind, others, icons, drawings, rendered, root: root?.id ?? null };
}
