// The answer: drawn anew when the server sends one, and spoken once it has stood for a moment.
const QUIET = 700; // milliseconds without another answer until a screen reader hears of it
const [answer, spoken, picture, form, bars] =
  ["answer", "spoken", "picture", "form", "bars"].map(id => element.querySelector("#" + id));
let waiting;

for (let digit = 0; digit < 10; digit++) {
  const row = bars.insertRow();
  const name = row.appendChild(document.createElement("th"));
  name.scope = "row";
  name.textContent = digit;
  row.insertCell().className = "bar";
  row.cells[1].append(document.createElement("div"));
  row.insertCell().className = "share";
}

function percent(share) {
  return `${(100 * share).toFixed(2)}%`;
}

function sentence(value) {
  if (!value) return "Nothing yet.";
  if (value.error) return `Not read: ${value.error}.`;
  if (value.digit === null) return `Warning: ${value.warning}.`;
  const guess = `${value.digit}, ${percent(value.probabilities[value.digit])}`;
  return value.warning ? `Warning: ${value.warning}. Nearest: ${guess}.` : `${guess}.`;
}

function show(image, url, alt) {
  image.hidden = !url;
  image.src = url ?? "data:,";
  image.alt = url ? alt : "";
}

function draw() {
  const value = props.value;
  answer.textContent = sentence(value);
  answer.classList.toggle("warned", Boolean(value?.error || value?.warning));
  show(picture, value?.picture, "Your picture, in grey, as it was read");
  show(form, value?.form, "The 28 by 28 pixels that the network saw");
  for (const [digit, row] of Array.from(bars.rows).entries()) {
    const share = value?.probabilities?.[digit];
    row.classList.toggle("best", value?.digit === digit);
    row.querySelector("div").style.width = percent(share ?? 0);
    row.cells[2].textContent = share === undefined ? "" : percent(share);
  }
  clearTimeout(waiting);
  waiting = setTimeout(() => { spoken.textContent = value ? answer.textContent : ""; }, QUIET);
}

draw();
watch("value", draw);
