// The sheet: what is drawn, dropped, pasted, chosen or photographed goes to the server as a data URL.
const LARGEST = 100e6; // bytes of a file: three times those of a phone's largest photo
const PEN = 18, STEP = 6; // pixels of the canvas
const [sheet, camera, file, shoot, noCamera, message] =
  ["sheet", "camera", "file", "shoot", "no-camera", "sheet-message"].map(id => element.querySelector("#" + id));
const context = sheet.getContext("2d");
let last = null; // where the pen is on the sheet, while it is down
let keyboard = {x: sheet.width / 2, y: sheet.height / 2, down: false};
let frame = 0; // the animation frame that will send the drawing

function send(url) {
  props.value = url;
  trigger("input");
}

function sendDrawing() { // once a frame at most; the event below leaves out what comes while an answer is on its way
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    send(sheet.toDataURL());
  });
}

function wipe() {
  cancelAnimationFrame(frame); // a drawing that waits is gone, too
  frame = 0;
  context.fillStyle = "white";
  context.fillRect(0, 0, sheet.width, sheet.height);
  say("");
}

function say(text) {
  message.textContent = text;
}

function line(from, to) {
  Object.assign(context, {lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "black"});
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(to.x + 0.01, to.y); // a line without length would be no dot
  context.stroke();
  sendDrawing();
}

function place(event) {
  const box = sheet.getBoundingClientRect();
  return {
    x: (event.clientX - box.left) * sheet.width / box.width,
    y: (event.clientY - box.top) * sheet.height / box.height,
  };
}

async function sendFile(picture) {
  if (picture.size > LARGEST) {
    say(`${picture.name} has ${Math.round(picture.size / 1e6)} MB, ${LARGEST / 1e6} MB are the most.`);
    return;
  }
  wipe();
  const reader = new FileReader();
  reader.onload = () => send(picture.size ? reader.result : "data:,"); // Chromium's URL of an empty file has no comma
  reader.onerror = () => say(`${picture.name} can't be read: ${reader.error.message}`);
  reader.readAsDataURL(picture);
}

function closeCamera() {
  camera.srcObject?.getTracks().forEach(track => track.stop());
  camera.srcObject = null;
  camera.hidden = noCamera.hidden = true;
  sheet.hidden = false;
  shoot.textContent = "Take one with the camera";
}

async function openCamera() {
  shoot.disabled = true; // a second camera would never be stopped, and a picture before the first frame is empty
  try {
    await startCamera();
  } catch (error) {
    closeCamera();
    say(`No camera: ${error.message}`);
  }
  shoot.disabled = false;
}

async function startCamera() {
  camera.srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
  say("");
  sheet.hidden = true;
  camera.hidden = noCamera.hidden = false;
  await camera.play();
  shoot.textContent = "Take the picture";
}

function takePicture() {
  const picture = Object.assign(document.createElement("canvas"), {width: camera.videoWidth, height: camera.videoHeight});
  picture.getContext("2d").drawImage(camera, 0, 0);
  wipe();
  closeCamera();
  send(picture.toDataURL("image/jpeg", 0.95));
}

sheet.addEventListener("pointerdown", event => {
  if (event.button) return;
  sheet.setPointerCapture(event.pointerId);
  last = place(event);
  line(last, last);
});
sheet.addEventListener("pointermove", event => {
  if (!last) return;
  for (const each of event.getCoalescedEvents?.().concat(event) ?? [event]) {
    line(last, place(each));
    last = place(each);
  }
});
for (const end of ["pointerup", "pointercancel"]) sheet.addEventListener(end, () => { last = null; });

sheet.addEventListener("keydown", event => {
  const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (step) {
    const to = {
      x: Math.min(sheet.width, Math.max(0, keyboard.x + STEP * step[0])),
      y: Math.min(sheet.height, Math.max(0, keyboard.y + STEP * step[1])),
    };
    if (keyboard.down) line(keyboard, to);
    Object.assign(keyboard, to);
  } else if (event.key === " ") {
    keyboard.down = !keyboard.down;
    if (keyboard.down) line(keyboard, keyboard);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    clear();
  } else {
    return;
  }
  say(`Pen ${keyboard.down ? "down" : "up"} at ${Math.round(100 * keyboard.x / sheet.width)}% from the left, ` +
    `${Math.round(100 * keyboard.y / sheet.height)}% from the top.`);
  event.preventDefault();
});

function clear() {
  wipe();
  keyboard = {x: sheet.width / 2, y: sheet.height / 2, down: false};
  send("");
}

element.querySelector("#clear").addEventListener("click", clear);
element.querySelector("#choose").addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  if (file.files.length) sendFile(file.files[0]);
  file.value = ""; // so that the same file can be chosen again
});
shoot.addEventListener("click", () => camera.hidden ? openCamera() : takePicture());
noCamera.addEventListener("click", closeCamera);
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => {
  event.preventDefault();
  if (event.dataTransfer.files.length) sendFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", event => {
  if (event.clipboardData.files.length) sendFile(event.clipboardData.files[0]);
});
wipe();
