"use strict";

const $ = (id) => document.getElementById(id);
const NAMES = {
  decode: "Decode", preprocess: "Resize and crop", queue: "Queue", inference: "Network",
  postprocess: "Ranking",
};
let key = "";
let stream = null;
let last = null; // the image that was chosen, and of how many files it was the first
let asked = 0; // only the answer to the last image is shown
let shown = ""; // the blob's address of the preview

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function say(text) {
  $("status").textContent = text;
  $("problem").hidden = true;
}

function complain(text) {
  $("status").textContent = "";
  $("problem").textContent = text;
  $("problem").hidden = false;
  $("classes").replaceChildren();
  $("times").hidden = true;
}

async function call(path, options = {}) {
  const headers = key ? { "X-API-Key": key } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Does it still run?");
  }
  if (answer.status === 401) {
    $("key-form").hidden = false;
    throw new Error(key ? "That is not the server's API key." : "The API key is needed first.");
  }
  const body = await answer.json().catch(() => null); // a proxy's page is none
  if (!answer.ok || !body) {
    throw new Error(body?.error?.message ?? `The server answered with status ${answer.status}.`);
  }
  return body;
}

function percent(score) {
  return `${(100 * score).toFixed(1)} %`;
}

function show(prediction, files) {
  const best = prediction.topk[0];
  const left = files > 1 ? `. This is the first of ${files} files; the others were not sent.` : "";
  say(`${best.label}, ${percent(best.score)}${left}`);
  $("classes").replaceChildren(...prediction.topk.map((ranked) => {
    const item = element("li");
    const bar = element("span", "bar");
    bar.style.width = `${100 * ranked.score}%`;
    item.append(bar, element("span", "label", ranked.label));
    item.append(element("span", "score", percent(ranked.score)));
    return item;
  }));
  const total = Object.values(prediction.speed_ms).reduce((sum, value) => sum + value, 0);
  const rows = Object.entries(prediction.speed_ms).concat([["Total", total]]);
  list("stages", rows.map(([stage, value]) => [NAMES[stage] ?? stage, `${value.toFixed(2)} ms`]));
  $("times").hidden = false;
}

function list(id, rows) {
  $(id).replaceChildren(...rows.flatMap(([name, value]) => [
    element("dt", "", name), element("dd", "", value),
  ]));
}

async function classify(image, files = 1) {
  last = [image, files];
  const number = ++asked;
  URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(image);
  $("preview").src = shown;
  $("preview").alt = image.name || "The chosen image";
  $("preview").hidden = false;
  $("choose").textContent = "Choose another image";
  $("drop").classList.add("filled");
  say("Working ...");
  const body = new FormData();
  body.append("image", image, image.name || "camera.jpg");
  try {
    const found = await call("/v1/predict?topk=5", { method: "POST", body });
    if (number === asked) show(found.predictions[0], files);
  } catch (error) {
    if (number === asked) complain(error.message);
  }
}

function preprocessing(made) {
  const squash = Array.isArray(made.resize);
  const resize = squash ? `resized to ${made.resize.join(" x ")} px`
    : made.resize ? `shorter side ${made.resize} px` : "size kept";
  const crop = Array.isArray(made.crop) ? made.crop.join(" x ") : made.crop;
  return [made.color, resize, crop ? `centre ${crop} px` : "no crop", made.interpolation].join(", ");
}

function pairs(values) {
  return Object.entries(values).map(([name, value]) => `${name} ${value}`).join(", ");
}

async function describe() {
  let card;
  try {
    card = await call("/v1/model");
  } catch (error) {
    complain(error.message);
    return;
  }
  document.title = `${card.name} - edgecls`;
  $("what").textContent = `${card.name}, ${card.precision}, for ${card.target}`;
  const rows = [
    ["Model", card.model.source],
    ["Classes", `${card.num_classes}`],
    ["Precision", card.precision],
    ["Runs on", `${card.backend}: ${pairs(card.runs_on)}`],
    ["Preprocessing", preprocessing(card.preprocess)],
  ];
  if (card.calibration) {
    rows.push(["Calibrated on", `${card.calibration.images} images, ${card.calibration.method}`]);
  }
  if (card.fell_back) rows.push(["Simulated", card.fell_back]);
  if (card.problem) rows.push(["Problem", card.problem]);
  rows.push(["Exported with", pairs(card.tools)]);
  rows.push(["Bundle", card.bundle_sha256]);
  list("card", rows);
}

function stopCamera() {
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  $("video").hidden = $("shoot").hidden = true;
  $("drop").hidden = false;
  $("camera").textContent = "Use the camera";
}

async function toggleCamera() {
  if (stream) {
    stopCamera();
    return;
  }
  try {
    // Browsers give it to secure pages only: https, or this machine itself.
    if (!navigator.mediaDevices) throw new Error("the page is not served over https");
    const given = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    stopCamera(); // another press of the button may have been granted one too
    stream = given;
  } catch (error) {
    complain(`The camera cannot be used: ${error.message}`);
    return;
  }
  $("video").srcObject = stream;
  $("video").hidden = $("shoot").hidden = false;
  $("drop").hidden = true;
  $("camera").textContent = "Stop the camera";
  await $("video").play();
  $("shoot").focus();
}

function shoot() {
  const canvas = element("canvas");
  canvas.width = $("video").videoWidth;
  canvas.height = $("video").videoHeight;
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  canvas.toBlob((blob) => {
    stopCamera();
    $("camera").focus();
    if (blob) classify(blob);
    else complain("The camera gave no picture yet.");
  }, "image/jpeg", 0.95);
}

function first(files) {
  return [...files].find((file) => file.type.startsWith("image/")) ?? files[0];
}

$("file").addEventListener("change", () => {
  if ($("file").files.length) classify($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => {
  const image = first(event.clipboardData.files);
  if (image) classify(image, event.clipboardData.files.length);
});
// Anywhere on the page: a file that misses the zone would else take the page's place.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const image = first(event.dataTransfer.files);
  if (image) classify(image, event.dataTransfer.files.length);
});
$("preview").addEventListener("error", () => { // what no browser can show
  $("preview").hidden = true;
  $("drop").classList.remove("filled");
});
$("camera").addEventListener("click", toggleCamera);
$("shoot").addEventListener("click", shoot);
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  $("key-form").hidden = true;
  $("file").focus();
  say("No image yet.");
  describe();
  if (last) classify(...last);
});
describe();
