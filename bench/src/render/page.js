"use strict";
document.documentElement.classList.add("scripted");

// The legend shows and hides arms in every chart.
for (const button of document.querySelectorAll("#legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const series of document.querySelectorAll("svg .series")) {
      if (series.dataset.series === button.dataset.series) series.classList.toggle("off", !shown);
    }
  });
}

// A mark says its value when the pointer is near it, and when the arrow keys reach it; without this script the browser
// shows it, from <title>.
const tip = document.getElementById("tip");
const REACH = 40;
const show = (mark, x, y) => {
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.says;
  const left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8);
  const above = y - tip.offsetHeight - 10;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 0 ? above : y + 18}px`;
};

for (const svg of document.querySelectorAll("svg.chart")) {
  const marks = [...svg.querySelectorAll(".mark")].filter((mark) => mark.querySelector("title"));
  for (const mark of marks) {
    mark.says = mark.querySelector("title").textContent;
    mark.querySelector("title").remove();
    mark.setAttribute("aria-label", mark.says);
    mark.setAttribute("tabindex", "-1");
  }

  const point = (event) => {
    let best = null;
    let least = REACH;
    for (const mark of marks) {
      const box = mark.getBoundingClientRect();
      if (box.width === 0 && box.height === 0) continue;
      const dx = Math.max(box.left - event.clientX, 0, event.clientX - box.right);
      const dy = Math.max(box.top - event.clientY, 0, event.clientY - box.bottom);
      const distance = Math.hypot(dx, dy);
      if (distance < least) [best, least] = [mark, distance];
    }
    show(best, event.clientX, event.clientY);
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", () => show(null));

  // One stop of the tab key for each chart; the arrow keys move between its marks.
  if (marks.length === 0) continue;
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("keydown", (event) => {
    const visible = marks.filter((mark) => mark.getBoundingClientRect().width > 0);
    const at = visible.indexOf(document.activeElement);
    const last = visible.length - 1;
    const next = {
      ArrowRight: Math.min(at + 1, last), ArrowDown: Math.min(at + 1, last),
      ArrowLeft: Math.max(at - 1, 0), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last,
    }[event.key];
    if (event.key === "Escape") show(null);
    if (next === undefined || !visible[next]) return;
    event.preventDefault();
    visible[next].focus();
  });
  svg.addEventListener("focusin", (event) => {
    const mark = event.target.closest(".mark");
    const box = mark?.getBoundingClientRect();
    show(mark, box?.right ?? 0, box?.top ?? 0);
  });
  svg.addEventListener("focusout", () => show(null));
}
