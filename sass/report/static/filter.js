// The search in a long table; without scripts the table stands there whole.
"use strict";

for (const field of document.querySelectorAll("input[data-filter]")) {
  const rows = document.getElementById(field.dataset.filter).tBodies[0].rows;
  field.closest(".filter").hidden = rows.length < 12;
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
}
