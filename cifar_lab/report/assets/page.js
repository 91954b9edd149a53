// Shows the values of all curves at the pointer. The curves' own points are the data.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  // The point that is touched is told with the others, not in a second tip beside this one.
  const told = new WeakMap();
  for (const title of document.querySelectorAll(".chart .values title")) {
    told.set(title.parentNode, title.textContent);
    title.remove();
  }
  const numbers = (text) => text.split(" ").map(Number);
  const shown = (value, range) => {
    const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(range) || 1)));
    return value.toFixed(Math.min(digits, 8));
  };
  const hide = () => { tip.hidden = true; };
  const show = (event) => {
    const chart = event.target.closest(".chart[data-box]");
    if (!chart) return hide();
    const [left, top, right, bottom] = numbers(chart.dataset.box);
    const [x0, x1] = numbers(chart.dataset.x), [y0, y1] = numbers(chart.dataset.y);
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
    if (at.x < left - 4 || at.x > right + 4 || at.y < top || at.y > bottom) return hide();
    const rows = [];
    let where = null;
    for (const curve of chart.querySelectorAll("polyline[data-label]")) {
      let best = null;
      for (const point of curve.points) {
        if (!best || Math.abs(point.x - at.x) < Math.abs(best.x - at.x)) best = point;
      }
      if (!best || Math.abs(best.x - at.x) > (right - left) / 8) continue;
      where = where === null ? best.x : where;
      const share = (bottom - best.y) / (bottom - top);
      const value = "log" in chart.dataset ? y0 * (y1 / y0) ** share : y0 + share * (y1 - y0);
      const row = document.createElement("div"), name = document.createElement("span"), text = document.createElement("span");
      const key = document.createElement("i");
      key.style.background = getComputedStyle(curve).stroke;
      name.append(key, curve.dataset.label || "value");
      text.textContent = "log" in chart.dataset ? shown(value, value) : shown(value, y1 - y0);
      row.append(name, text);
      rows.push(row);
    }
    if (!rows.length) return hide();
    const head = document.createElement("div");
    const x = x0 + (where - left) / (right - left) * (x1 - x0);
    head.textContent = `${chart.dataset.xTitle} ${shown(x, x1 - x0)}`;
    if (told.has(event.target)) {
      const touched = document.createElement("div");
      touched.textContent = told.get(event.target);
      rows.push(touched);
    }
    tip.replaceChildren(head, ...rows);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const beside = event.clientX + 16 + box.width > innerWidth ? event.clientX - box.width - 12 : event.clientX + 16;
    tip.style.left = `${Math.max(4, beside)}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 4))}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", hide, { passive: true });
})();
