const table = document.querySelector("table"), body = table.tBodies[0];
table.tHead.addEventListener("click", event => {
  const head = event.target.closest("th");
  if (!head) return;
  const down = head.ariaSort === "ascending", at = head.cellIndex;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[at].dataset.v;
  const rows = [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  });
  body.append(...rows);
});
for (const field of document.querySelectorAll("input[data-rows]"))
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    const whole = /[0-9]$/.test(wanted) ? wanted + " " : wanted;  // 0 is not the start of 0.7
    for (const row of document.querySelectorAll(field.dataset.rows)) {
      const heads = row.cells ? table.tHead.rows[0].cells : [];
      const parts = [...row.children].map((part, k) => row.cells
        ? `${heads[k].textContent} ${part.firstChild?.textContent}` : part.textContent);
      const name = row.closest(".block")?.firstChild.textContent ?? "";
      row.hidden = !`${name} ${parts.join(" ")} `.toLowerCase().includes(whole);
    }
    if (field.dataset.rows !== "article") return;
    for (const part of document.querySelectorAll(".block, section > details:has(article)")) {
      part.hidden = !part.querySelector("article:not([hidden])");
      if (wanted && part.open === false) part.open = true;
    }
  });
