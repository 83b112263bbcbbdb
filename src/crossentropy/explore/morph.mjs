// Brings the document up to new markup in place: what has the focus, or is being dragged, stays the same element.

/** Make `old` the same as `fresh`, an element of the same name. */
function renew(old, fresh) {
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (old.localName === "input") {
    old.checked = fresh.checked;
    // What is being typed may be another text of the same number, such as "1." or "1e0".
    if (old.type === "range" || old.value === "" || Number(old.value) !== Number(fresh.value)) old.value = fresh.value;
  }
  renewChildren(old, fresh);
}

/** Make the children of `old` the same as those of `fresh`. */
function renewChildren(old, fresh) {
  const now = [...old.childNodes];
  const next = [...fresh.childNodes];
  next.forEach((node, k) => {
    if (!now[k]) old.append(node);
    else if (now[k].nodeName !== node.nodeName) now[k].replaceWith(node);
    else if (node.nodeType !== Node.ELEMENT_NODE) now[k].data = node.data;
    else renew(now[k], node);
  });
  for (const node of now.slice(next.length)) node.remove();
}

/** Show `markup` in `element`. */
export function show(element, markup) {
  const template = document.createElement("template");
  template.innerHTML = markup;
  renewChildren(element, template.content);
}
