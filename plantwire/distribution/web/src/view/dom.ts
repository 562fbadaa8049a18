/**
 * The few words in which views speak to the document.
 *
 * Guarantees: an element that the page must have and has not is an error at start, not later; text is
 * written only when it differs, because a write costs layout even when nothing changes.
 * Not here: when views are drawn (`frame`).
 */

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element as T;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  text = "",
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className !== "") element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

/** An element's text as a node of its own, so that a change touches nothing else. */
export function textIn(parent: Element): Text {
  const node = document.createTextNode("");
  parent.append(node);
  return node;
}

export function setText(node: Text | Element, text: string): void {
  if (node instanceof Text) {
    if (node.data !== text) node.data = text;
  } else if (node.textContent !== text) {
    node.textContent = text;
  }
}

export function setData(element: HTMLElement, name: string, value: string | null): void {
  if (value === null) {
    if (name in element.dataset) delete element.dataset[name];
  } else if (element.dataset[name] !== value) {
    element.dataset[name] = value;
  }
}

const SVG = "http://www.w3.org/2000/svg";

/** The shape of a severity with its letter; the words for it belong beside it. */
export function severityShape(severity: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "shape");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  const letter = document.createElementNS(SVG, "text");
  letter.setAttribute("x", "10");
  letter.setAttribute("text-anchor", "middle");
  svg.append(use, letter);
  setSeverityShape(svg, severity);
  return svg;
}

export function setSeverityShape(svg: SVGSVGElement, severity: string): void {
  if (svg.dataset["severity"] === severity) return;
  svg.dataset["severity"] = severity;
  svg.querySelector("use")?.setAttribute("href", `#shape-${severity}`);
  const letter = svg.querySelector("text");
  if (letter === null) return;
  letter.textContent = severity.charAt(0);
  letter.setAttribute("y", severity === "HIGH" ? "16" : severity === "LOW" ? "11.5" : "14");
}
