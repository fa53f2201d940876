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

// The mark nearest to the pointer says its value; without this script the browser does, from <title>.
const tip = document.getElementById("tip");
const REACH = 40;
for (const svg of document.querySelectorAll("svg.chart")) {
  const marks = [...svg.querySelectorAll(".mark")].filter((mark) => mark.querySelector("title"));
  for (const mark of marks) {
    mark.says = mark.querySelector("title").textContent;
    mark.querySelector("title").remove();
    mark.setAttribute("aria-label", mark.says);
  }
  const show = (event) => {
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
    tip.hidden = !best;
    if (!best) return;
    tip.textContent = best.says;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const above = event.clientY - tip.offsetHeight - 10;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above > 0 ? above : event.clientY + 18}px`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
}
