"""What a page is asked in a browser: bodies of functions in JavaScript."""

# Texts of figures that touch each other, or leave their figure.
COLLISIONS = """
const found = [];
for (const chart of document.querySelectorAll("svg.chart")) {
  const frame = chart.getBoundingClientRect();
  const texts = [...chart.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
  if (!texts.length) found.push(["a figure without text", chart.outerHTML.slice(0, 80)]);
  texts.forEach(([text, box], i) => {
    const beside = box.left < frame.left - 1 || box.right > frame.right + 1;
    if (beside || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
      found.push(["outside", text]);
    for (const [other, b] of texts.slice(i + 1)) {
      const wide = Math.min(box.right, b.right) - Math.max(box.left, b.left);
      const high = Math.min(box.bottom, b.bottom) - Math.max(box.top, b.top);
      // Boxes are as high as the font's tallest letter, so that lines may touch by a little.
      if (wide > 0.5 && high > 3 * frame.width / chart.viewBox.baseVal.width) found.push([text, other]);
    }
  });
}
return found;
"""
# Elements that stick out of the page, or whose text does not fit into them.
CUT = """
const found = [];
for (const element of document.querySelectorAll("body *")) {
  if (element.closest("svg, .hidden, script, style") || !element.getClientRects().length) continue;
  const box = element.getBoundingClientRect();
  const scroller = element.closest(".scroll, figure"), inside = scroller && scroller !== element;
  const out = box.right > innerWidth + 0.5 || box.left < -0.5;
  if (out && !inside) found.push(["sticks out", element.outerHTML.slice(0, 120)]);
  if (element.closest(".confusion")) continue;  // has an ellipsis on purpose
  const block = element.clientWidth && getComputedStyle(element).display !== "inline";
  if (block && element !== scroller && element.scrollWidth > element.clientWidth + 1)
    found.push(["cut", element.outerHTML.slice(0, 120)]);
}
return found;
"""
# Smallest text that is drawn or written, in pixels of the screen, and what it says.
FONT = """
let least = [99, ""];
for (const element of document.querySelectorAll("body *")) {
  if (element.closest(".hidden, script, style, title") || !element.getClientRects().length) continue;
  if (![...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
  const drawn = element.closest("svg") ? Math.hypot(element.getScreenCTM().a, element.getScreenCTM().b) : 1;
  const size = parseFloat(getComputedStyle(element).fontSize) * drawn;
  if (size < least[0]) least = [size, element.outerHTML.slice(0, 120)];
}
return least;
"""
# What of the page's width each figure of the sections takes, the narrowest first.
WIDTHS = """
const main = document.querySelector("main"), style = getComputedStyle(main);
const room = main.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
return [...document.querySelectorAll("main section > figure")]
  .map((f) => [...f.querySelectorAll("svg")].filter((c) => c.getClientRects().length))
  .map((shown) => [shown.length, shown[0].getBoundingClientRect().width / room]).sort((a, b) => a[1] - b[1]);
"""
# Lowest contrast of any line or area of a figure to the page (WCAG 2.2: at least 3); grids and faint seeds are no more
# than a help to the eye.
LINES = """
const inks = [["stroke", ".curve:not(.faint), .whisker, .seed, .diagonal"], ["fill", "[class^=f], .mean, .sure"]]
  .flatMap(([of, which]) => [...document.querySelectorAll(which)]
    .filter((e) => e.closest("svg") && e.getClientRects().length).map((e) => getComputedStyle(e)[of]));
const paper = getComputedStyle(document.body).backgroundColor;
return Math.min(...inks.map((ink) => {
  const [a, b] = [light(parse(ink)), light(parse(paper))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}));
"""
# Lowest contrast of any text to what is behind it (WCAG 2.2: at least 4.5).
COLOURS = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const parse = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
"""
CONTRAST = """
let worst = [99, ""];
for (const element of document.querySelectorAll("body *")) {
  if (element.closest(".confusion .zero, .hidden, script, style, title") || !element.getClientRects().length) continue;
  if (![...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
  const style = getComputedStyle(element), ink = parse(element.closest("svg") ? style.fill : style.color);
  let paper = [0, 0, 0, 0], behind = element;
  const layers = [];
  for (; behind; behind = behind.parentElement) {
    const layer = parse(getComputedStyle(behind).backgroundColor);
    layers.push(layer);
    if (layer[3] === 255) break;
  }
  paper = layers.pop();
  for (const layer of layers.reverse()) paper = paper.map((v, i) => v + (layer[i] - v) * layer[3] / 255);
  const [a, b] = [light(ink), light(paper)], contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < worst[0]) worst = [contrast, element.outerHTML.slice(0, 120)];
}
return worst;
"""
