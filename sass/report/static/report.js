// Two comforts; without scripts the pages show the same pictures and tables, one after the other.
"use strict";

// The swipe between image and map.
for (const swipe of document.querySelectorAll(".swipe")) {
  const label = swipe.querySelector(".slider");
  const slider = label.querySelector("input");
  const stage = swipe.querySelector(".stage");
  const show = () => stage.style.setProperty("--split", `${slider.value}%`);
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    slider.value = (100 * (event.clientX - box.left)) / box.width;
    show();
  };
  slider.addEventListener("input", show);
  stage.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons) follow(event);
  });
  swipe.classList.add("live");
  label.hidden = false;
  show();
}

// The search in a long table.
for (const field of document.querySelectorAll("input[data-filter]")) {
  const rows = document.getElementById(field.dataset.filter).tBodies[0].rows;
  field.closest(".filter").hidden = rows.length < 12;
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
}
