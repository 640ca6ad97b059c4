// The swipe between an image and a picture over it; without scripts they stand side by side.
"use strict";

for (const swipe of document.querySelectorAll(".swipe")) {
  const controls = swipe.querySelector(".slider");
  const slider = controls.querySelector("input[type=range]");
  const stage = swipe.querySelector(".stage");
  const over = stage.querySelector(".over");
  const word = controls.querySelector("[data-over]");
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
  for (const layer of swipe.querySelectorAll("input[name=layer]")) {
    layer.addEventListener("change", () => {
      over.src = layer.dataset.src;
      over.alt = layer.dataset.alt;
      word.textContent = layer.dataset.word;
    });
  }
  swipe.classList.add("live");
  for (const part of swipe.querySelectorAll("[hidden]")) part.hidden = false;
  show();
}
