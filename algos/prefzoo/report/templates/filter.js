(() => {
  const boxes = [...document.querySelectorAll(".scroll")];
  const measure = () => boxes.forEach((box) => box.toggleAttribute("data-wide", box.scrollWidth > box.clientWidth + 1));
  addEventListener("resize", measure);
  document.addEventListener("toggle", measure, true);  // a table in what was folded away has no width before
  measure();
})();
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const items = [...document.querySelectorAll(".answered")].map((node) => ({
    node,
    prompt: node.querySelector("summary").textContent.toLowerCase(),
    answers: [...node.querySelectorAll(".answer")].map((answer) => ({
      answer, text: answer.querySelector(".reply").textContent.toLowerCase(),
    })),
  }));
  const count = document.getElementById("shown");
  const apply = () => {
    const wanted = form.elements.text.value.trim().toLowerCase();
    const slice = form.elements.slice ? form.elements.slice.value : "";
    const policies = new Set([...form.querySelectorAll("[name=policy]:checked")].map((box) => box.value));
    let shown = 0;
    for (const { node, prompt, answers } of items) {
      let found = prompt.includes(wanted);
      for (const { answer, text } of answers) {
        answer.hidden = !policies.has(answer.dataset.policy);
        found ||= !answer.hidden && text.includes(wanted);
      }
      node.hidden = !found || (slice !== "" && node.dataset.slice !== slice);
      shown += !node.hidden;
    }
    count.textContent = `${shown} of ${items.length} prompts shown`;
  };
  const openAll = (open) => items.forEach(({ node }) => { node.open = open; });
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  form.querySelector("[data-open]").addEventListener("click", () => openAll(true));
  form.querySelector("[data-close]").addEventListener("click", () => openAll(false));
  form.hidden = false;
  apply();
})();
