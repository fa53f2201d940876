"use strict";
addEventListener("load", () => {
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) problems.push(`the page is ${root.scrollWidth} wide in ${innerWidth}`);
  const svgs = [...document.querySelectorAll("svg.chart")];
  for (const svg of svgs) {
    const frame = svg.getBoundingClientRect();
    if (frame.width < 100 || frame.height < 60) problems.push(`${svg.id} is too small`);
    if (!svg.closest(".scroll") && (frame.left < 0 || frame.right > innerWidth)) problems.push(`${svg.id} is cut off by the window`);
    const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    texts.forEach(([text, box], index) => {
      const out = box.left < frame.left - 0.5 || box.right > frame.right + 0.5 || box.top < frame.top - 0.5 ||
        box.bottom > frame.bottom + 0.5;
      if (out) problems.push(`${svg.id}: "${text}" is cut off`);
      for (const [other, its] of texts.slice(index + 1)) {
        const wide = Math.min(box.right, its.right) - Math.max(box.left, its.left);
        const high = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
        // Lines of text may touch, as their boxes are higher than their letters.
        if (wide > 1 && high > box.height * 0.35) problems.push(`${svg.id}: "${text}" and "${other}" overlap`);
      }
    });
  }
  for (const text of document.querySelectorAll("h1, h2, h3, p, li")) {
    if (text.scrollWidth > text.clientWidth + 1) problems.push(`"${text.textContent.slice(0, 40)}" is cut off`);
  }
  // With a keyboard alone, and through a screen reader, everything can be reached.
  for (const box of document.querySelectorAll("*")) {
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(box).overflowX) && box.scrollWidth > box.clientWidth;
    if (scrolls && box.tabIndex < 0 && !box.querySelector("summary, [tabindex='0']")) {
      problems.push(`<${box.tagName} class="${box.className}"> scrolls, and no key reaches it`);
    }
  }
  for (const labelled of document.querySelectorAll("div[aria-label], g[aria-label], svg[aria-label]")) {
    if (!labelled.getAttribute("role")) problems.push(`"${labelled.getAttribute("aria-label")}" labels nothing: no role`);
  }
  for (const svg of svgs) {
    const marks = svg.querySelectorAll(".mark[aria-label]").length;
    const rows = svg.closest("figure").querySelectorAll("details tr").length;
    if (rows !== marks) problems.push(`${svg.id} has ${marks} values, and a table of ${rows}`);
    const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    svg.focus();
    for (const key of ["ArrowRight", "ArrowRight", "End", "Home"]) {
      press(key);
      const mark = document.activeElement;
      const tip = document.getElementById("tip");
      if (!mark.matches(".mark") || tip.hidden || tip.textContent !== mark.getAttribute("aria-label")) {
        problems.push(`${svg.id}: ${key} reaches no value`);
      }
    }
    press("Escape");
    if (!document.getElementById("tip").hidden) problems.push(`${svg.id}: the value stays`);
    document.activeElement.blur();
  }
  const optional = (text) => (text === undefined ? null : Number(text));
  const shown = (element, arm, text) => ({
    arm,
    run: element.dataset.run,
    metric: element.dataset.metric,
    value: Number(element.dataset.value),
    low: optional(element.dataset.low),
    high: optional(element.dataset.high),
    text,
  });
  // A mark says its value after the last colon, before its interval and other remarks.
  const said = (mark) => mark.says.slice(mark.says.lastIndexOf(": ") + 2).split(/ \[|, /)[0];
  const found = {
    width: innerWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    problems,
    charts: svgs.length,
    marks: [...document.querySelectorAll(".mark[data-value]")].map((mark) => shown(mark, mark.dataset.arm, said(mark))),
    cells: [...document.querySelectorAll("td[data-value]")].map((cell) =>
      shown(cell, cell.parentElement.dataset.arm, cell.textContent)),
  };
  const pre = parent.document.createElement("pre");
  pre.id = "found";
  pre.textContent = JSON.stringify(found).replace(/[<>&]/g, (letter) =>
    `\\u00${letter.charCodeAt(0).toString(16)}`);
  parent.document.body.append(pre);
});
