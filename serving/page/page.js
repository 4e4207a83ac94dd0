// The page: asks the server for voices, speech and conversions, and plays audio while it arrives.

const MAX_TEXT = 5000; // characters, as in serving/takes.py
const MAX_TAKES = 20; // kept for comparison
const LEAD = 0.05; // seconds between the arrival of the first audio and its playback
const REMEMBERED = ["voice", "speaker", "text", "pace", "noise", "rhythm"]; // fields that survive a reload
const byId = (id) => document.getElementById(id);
const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const plural = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;

let latest = null; // the take that is shown in full
let working = null; // the AbortController of the request in progress
let usable = false; // whether the chosen voice works

// Requests

async function request(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  if (response.status === 401) byId("key-form").hidden = false;
  const answer = await response.json().catch(() => null);
  throw new Error(answer?.error?.message ?? `the server answered ${response.status}`);
}

const post = (path, content, signal) =>
  request(path, { method: "POST", body: JSON.stringify(content), headers: { "Content-Type": "application/json" }, signal });

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) yield JSON.parse(block.slice("data: ".length));
  }
}

// Audio

class Player {
  // Plays 16-bit samples one part after the other, as they arrive.
  constructor() {
    this.context = new AudioContext();
    this.end = 0;
    this.sources = new Set();
  }

  add(samples, rate) {
    if (!samples.length || this.context.state === "closed") return;
    const buffer = this.context.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(Float32Array.from(samples, (sample) => sample / 32768), 0);
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    this.end = Math.max(this.end, this.context.currentTime + LEAD);
    source.start(this.end);
    this.end += buffer.duration;
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  stop() {
    if (this.context.state !== "closed") this.context.close();
  }

  async finished() {
    while (this.context.state === "running" && this.context.currentTime < this.end) await new Promise((done) => setTimeout(done, 50));
    this.stop();
  }
}

function wavFile(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const size = 2 * samples.length;
  const words = [0x46464952, size + 36, 0x45564157, 0x20746d66, 16, 0x10001, rate, 2 * rate, 0x100002, 0x61746164, size];
  words.forEach((word, i) => view.setUint32(4 * i, word, true));
  samples.forEach((sample, i) => view.setInt16(44 + 2 * i, sample, true));
  return new Blob([view], { type: "audio/wav" });
}

async function decoded(blob) {
  // Returns any recording that the browser can play as a WAV file.
  const context = new AudioContext();
  const audio = await context.decodeAudioData(await blob.arrayBuffer()).finally(() => context.close());
  const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
  const mono = Int16Array.from(channels[0], (_, i) => {
    const mean = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
    return Math.max(-32768, Math.min(32767, Math.round(32768 * mean)));
  });
  return wavFile(mono, audio.sampleRate);
}

function bytesOf(base64) {
  const text = atob(base64);
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function joined(arrays, Type) {
  const whole = new Type(arrays.reduce((sum, array) => sum + array.length, 0));
  let at = 0;
  for (const array of arrays) {
    whole.set(array, at);
    at += array.length;
  }
  return whole;
}

// Speaking and converting

function begin(label) {
  working = new AbortController();
  byId("error").hidden = true;
  showProgress(label);
  if (latest) shelve(latest);
  latest = null;
  busy();
  return working.signal;
}

function ended(error) {
  working = null;
  showProgress("");
  busy();
  if (error && error.name !== "AbortError") {
    byId("error").textContent = error.message;
    byId("error").hidden = false;
  }
}

function busy() {
  const text = byId("text").value;
  for (const [id, idle, active] of [["speak", "Speak", "Speaking…"], ["convert", "Convert", "Converting…"]]) {
    byId(id).disabled = Boolean(working) || !usable || (id === "speak" && [...text].length > MAX_TEXT);
    byId(id).textContent = working ? active : idle;
    byId(id).setAttribute("aria-busy", Boolean(working));
  }
  byId("stop").hidden = !working;
}

function showProgress(text) {
  byId("progress").textContent = text;
  byId("progress").hidden = !text;
}

async function speak() {
  if (working || byId("speak").disabled) return;
  const text = byId("text").value;
  const lines = text.split("\n").filter((line) => line.trim());
  const texts = byId("lines").checked && lines.length ? lines : [text];
  const player = new Player();
  const signal = begin("Speaking…");
  signal.addEventListener("abort", () => player.stop());
  try {
    const seed = seedIn("seed");
    for (const [i, one] of texts.entries()) {
      const prefix = texts.length > 1 ? `Line ${i + 1} of ${texts.length} · ` : "";
      if (latest) shelve(latest);
      latest = await speakOne(one, seed, player, signal, prefix);
      byId("latest").replaceChildren(latest.card);
      latest.draw();
    }
    showProgress("Playing…");
    await player.finished();
    ended();
  } catch (error) {
    player.stop();
    ended(error);
  }
}

async function speakOne(text, seed, player, signal, prefix) {
  const content = {
    model: byId("voice").value,
    input: text,
    voice: byId("speaker-field").hidden ? null : byId("speaker").value,
    speed: Number(byId("pace").value),
    noise_scale: Number(byId("noise").value),
    noise_scale_w: Number(byId("rhythm").value),
    response_format: "wav",
    stream_format: "sse",
    seed,
  };
  const response = await post("v1/audio/speech", content, signal);
  const rate = Number(response.headers.get("X-Sampling-Rate"));
  const parts = [];
  let header = 44; // bytes that are still to skip
  let sentences = 0;
  let seconds = 0;
  for await (const event of events(response)) {
    if (event.type === "speech.audio.delta") {
      const bytes = bytesOf(event.audio).slice(header);
      header = 0;
      parts.push(new Int16Array(bytes.buffer));
      player.add(parts.at(-1), rate);
      seconds += parts.at(-1).length / rate;
    } else if (event.type === "speech.sentence.done") sentences += 1;
    else if (event.type === "speech.audio.done") return new Take(text, joined(parts, Int16Array), event);
    showProgress(`${prefix}Speaking: ${plural(sentences, "sentence")}, ${number(seconds, 1)} s`);
  }
  throw new Error("the server ended the audio too early");
}

async function convert() {
  if (working) return;
  const file = byId("recording").files[0] ?? recorded;
  const signal = begin("Converting…");
  try {
    if (!file) throw new Error("record or upload something to convert first");
    const seed = seedIn("convert-seed") ?? Math.floor(Math.random() * 2 ** 31);
    const target = byId("target").value;
    const query = new URLSearchParams({ model: byId("voice").value, source: byId("source").value, target, seed });
    const response = await request(`v1/audio/convert?${query}`, { method: "POST", body: file, signal });
    const bytes = await response.arrayBuffer();
    const rate = new DataView(bytes).getUint32(24, true);
    const samples = new Int16Array(bytes.slice(44));
    const facts = { seed, seconds: samples.length / rate, sampling_rate: rate, sentences: [], symbols_left_out: [], text_left_out: [] };
    latest = new Take(`${file.name ?? "recording"} as ${target}`, samples, facts, "convert-seed");
    byId("latest").replaceChildren(latest.card);
    latest.draw();
    ended();
  } catch (error) {
    ended(error);
  }
}

function seedIn(id) {
  const typed = byId(id).value.trim();
  if (!typed) return null;
  if (!/^\d+$/.test(typed) || !Number.isSafeInteger(Number(typed))) throw new Error(`the seed is '${typed}': give a whole number from 0, or nothing for a random seed`);
  return Number(typed);
}

// Takes

class Take {
  // The card of a take. `facts` are those of the event speech.audio.done, `seedField` is where its seed can be kept.
  constructor(text, samples, facts, seedField = "seed") {
    this.samples = samples;
    this.facts = facts;
    this.name = text.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 50).replace(/^-|-$/g, "").toLowerCase() || "speech";
    this.card = byId("take").content.firstElementChild.cloneNode(true);
    const find = (name) => this.card.querySelector(name);
    this.wav = wavFile(samples, facts.sampling_rate);
    find(".said").textContent = text;
    const counted = facts.sentences.length ? `${plural(facts.sentences.length, "sentence")} · ` : "";
    find(".facts").textContent = `${number(facts.seconds, 1)} s · ${counted}seed ${facts.seed}`;
    find(".keep").onclick = () => {
      byId(seedField).value = facts.seed;
      if (seedField === "seed") byId("settings").open = true;
    };
    find("audio").src = URL.createObjectURL(this.wav);
    find(".downloads").append(this.link("wav", this.wav), this.encoded("mp3"), this.encoded("ogg"));
    if (facts.sentences.length) {
      find(".downloads").append(this.link("srt", new Blob([subtitles(facts.sentences)], { type: "text/plain" })));
      find(".phonemes").textContent = facts.sentences.map((sentence) => sentence.symbols).join(" ");
      find(".phonemes").hidden = false;
    }
    const leftOut = [...facts.symbols_left_out.map((symbol) => `the symbol “${symbol}”`), ...facts.text_left_out.map((part) => `“${part}”`)];
    find(".left-out").textContent = `Left out, because the voice cannot speak it: ${leftOut.join(", ")}`;
    find(".left-out").hidden = !leftOut.length;
  }

  link(suffix, blob) {
    const link = document.createElement("a");
    link.textContent = link.title = suffix;
    link.download = `${this.name}.${suffix}`;
    link.href = URL.createObjectURL(blob);
    return link;
  }

  encoded(suffix) {
    const button = document.createElement("button");
    button.textContent = suffix;
    button.onclick = async () => {
      button.disabled = true;
      try {
        const response = await request(`v1/audio/encode?response_format=${suffix}`, { method: "POST", body: this.wav });
        const link = this.link(suffix, await response.blob());
        button.replaceWith(link);
        link.click();
      } catch (error) {
        ended(error);
        button.disabled = false;
      }
    };
    return button;
  }

  draw() {
    const picture = this.card.querySelector(".picture");
    picture.hidden = false;
    drawPicture(picture, this.samples, this.facts);
  }

  remove() {
    for (const element of this.card.querySelectorAll("audio, a")) URL.revokeObjectURL(element.src ?? element.href);
    this.card.remove();
  }
}

const shelved = [];

function shelve(take) {
  // Moves a take to the earlier ones. Its player goes on where it is.
  byId("takes").prepend(take.card);
  byId("earlier").hidden = false;
  shelved.unshift(take);
  while (shelved.length > MAX_TAKES) shelved.pop().remove();
}

function subtitles(sentences) {
  const clock = (seconds) => {
    const ms = Math.round(1000 * seconds);
    const part = (divisor, modulus, digits) => String(Math.floor(ms / divisor) % modulus).padStart(digits, "0");
    return `${part(3600000, 100, 2)}:${part(60000, 60, 2)}:${part(1000, 60, 2)},${part(1, 1000, 3)}`;
  };
  return sentences.map((one, i) => `${i + 1}\n${clock(one.start)} --> ${clock(one.end)}\n${one.text}\n`).join("\n");
}

// The picture: a spectrogram, and below it words and symbols at their times

const WIDTH = 220; // least pixels for a second, so that symbols have room
const MAX_WIDTH = 16000; // pixels of a canvas
const MARGIN = 12; // pixels, for the last symbol
const HEIGHT = 128;
const WINDOW = 512; // samples
const RANGE = 7; // of the natural logarithm of the amplitude, from the background to full color
const dark = matchMedia("(prefers-color-scheme: dark)");

function drawPicture(picture, samples, facts) {
  const room = (picture.clientWidth || 600) - MARGIN;
  const scale = Math.min(Math.max(room / facts.seconds, facts.sentences.length ? WIDTH : 0), MAX_WIDTH / facts.seconds);
  const canvas = picture.querySelector("canvas");
  canvas.width = Math.max(1, Math.floor(scale * facts.seconds));
  canvas.height = HEIGHT;
  const columns = spectrogram(samples, facts.sampling_rate, canvas.width);
  const peak = Math.max(...columns.map((column) => Math.max(...column)));
  const image = new ImageData(canvas.width, HEIGHT);
  columns.forEach((column, x) => {
    column.forEach((value, y) => image.data.set(color(Math.max(0, 1 + (value - peak) / RANGE)), 4 * ((HEIGHT - 1 - y) * canvas.width + x)));
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  const words = facts.sentences.flatMap((sentence) => sentence.words);
  const tokens = facts.sentences.flatMap((sentence) => sentence.tokens).filter((token) => token.symbol.trim() && token.symbol !== "_");
  label(picture.querySelector(".words"), words, (word) => word.text ?? word.symbols, scale, true);
  label(picture.querySelector(".symbols"), tokens, (token) => token.symbol, scale, false);
}

function label(row, items, textOf, scale, limited) {
  // A word is cut where the next one begins, and a symbol moves to the right of the one before.
  row.hidden = !items.length;
  const spans = items.map((item, i) => {
    const span = document.createElement("span");
    span.textContent = span.title = textOf(item);
    span.style.left = `${scale * item.start}px`;
    if (limited && i + 1 < items.length) span.style.maxWidth = `${scale * (items[i + 1].start - item.start)}px`;
    return span;
  });
  row.replaceChildren(...spans);
  if (limited) return;
  const widths = spans.map((span) => span.getBoundingClientRect().width);
  let end = 0;
  for (const [i, span] of spans.entries()) {
    const left = Math.max(scale * items[i].start, end);
    span.style.left = `${left}px`;
    end = left + widths[i];
  }
}

function spectrogram(samples, rate, width) {
  // Returns the logarithms of the amplitudes of `width` columns, HEIGHT mel bands each.
  const mel = (hertz) => Math.log(1 + hertz / 700);
  const bins = Array.from({ length: HEIGHT }, (_, y) => ((700 * Math.expm1((mel(rate / 2) * (y + 0.5)) / HEIGHT)) / rate) * WINDOW);
  const hann = Float64Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));
  return Array.from({ length: width }, (_, x) => {
    const start = Math.round(((x + 0.5) / width) * samples.length) - WINDOW / 2;
    const amplitudes = amplitudesOf(hann.map((weight, i) => weight * (samples[start + i] ?? 0)));
    return bins.map((bin) => Math.log(1 + amplitudes[Math.min(Math.floor(bin), WINDOW / 2)]));
  });
}

function amplitudesOf(real) {
  // Absolute values of the discrete Fourier transform (Cooley and Tukey, in place, radix 2).
  const n = real.length;
  const imaginary = new Float64Array(n);
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]];
  }
  for (let size = 2; size <= n; size *= 2) {
    for (let k = 0; k < size / 2; k++) {
      const cosine = Math.cos((2 * Math.PI * k) / size);
      const sine = -Math.sin((2 * Math.PI * k) / size);
      for (let a = k; a < n; a += size) {
        const b = a + size / 2;
        const re = real[b] * cosine - imaginary[b] * sine;
        const im = real[b] * sine + imaginary[b] * cosine;
        [real[b], imaginary[b]] = [real[a] - re, imaginary[a] - im];
        real[a] += re;
        imaginary[a] += im;
      }
    }
  }
  return real.map((value, i) => Math.hypot(value, imaginary[i]));
}

function color(value) {
  // From the background over the accent to the foreground.
  const stops = dark.matches ? [[18, 20, 28], [99, 91, 220], [253, 224, 170]] : [[255, 255, 255], [129, 140, 248], [30, 20, 90]];
  const place = Math.min(value * 2, 1.999);
  const [from, to] = [stops[Math.floor(place)], stops[Math.floor(place) + 1]];
  return [...from.map((part, i) => part + (place % 1) * (to[i] - part)), 255];
}

// Voices and fields

async function listVoices() {
  const { data } = await (await request("v1/models")).json();
  const known = remembered();
  byId("voice").replaceChildren(...data.map(({ id }) => new Option(id)));
  if (data.some(({ id }) => id === known.voice)) byId("voice").value = known.voice;
  await chooseVoice(known.speaker);
  if (!usable && !known.voice) {
    for (const { id } of data) {
      byId("voice").value = id;
      await chooseVoice();
      if (usable) break;
    }
  }
}

async function chooseVoice(speaker) {
  const name = byId("voice").value;
  usable = false;
  busy();
  let voice;
  try {
    voice = await (await request(`v1/voices/${encodeURIComponent(name)}`)).json();
  } catch (error) {
    voice = { error: error.message };
  }
  if (name !== byId("voice").value) return; // another one has been chosen meanwhile
  usable = !voice.error;
  const speakers = voice.speakers ?? [];
  const kind = speakers.length ? plural(speakers.length, "speaker") : "one speaker";
  byId("about").textContent = usable ? `${kind} · ${voice.sampling_rate / 1000} kHz · ${voice.checkpoint}` : `This voice cannot be used: ${voice.error}`;
  byId("about").classList.toggle("bad", !usable);
  byId("speaker-field").hidden = byId("conversion").hidden = !speakers.length;
  byId("single").hidden = speakers.length || !usable;
  for (const id of ["speaker", "source", "target"]) byId(id).replaceChildren(...speakers.map((one) => new Option(one)));
  const chosen = [speaker, voice.default_speaker].find((one) => speakers.includes(one));
  if (chosen !== undefined) byId("speaker").value = chosen;
  byId("target").selectedIndex = Math.min(1, speakers.length - 1);
  busy();
}

const remembered = () => JSON.parse(localStorage.getItem("fields") ?? "{}");
const remember = () => localStorage.setItem("fields", JSON.stringify(Object.fromEntries(REMEMBERED.map((id) => [id, byId(id).value]))));

function count() {
  const length = [...byId("text").value].length;
  const over = length - MAX_TEXT;
  byId("counter").textContent = over > 0 ? `${plural(over, "character")} over the limit of ${number(MAX_TEXT)}` : `${number(length)} of ${number(MAX_TEXT)} characters`;
  byId("counter").classList.toggle("bad", over > 0);
  busy();
}

function selectTab(name) {
  for (const one of ["speak", "convert"]) {
    byId(`tab-${one}`).setAttribute("aria-selected", one === name);
    byId(`${one}-panel`).hidden = one !== name;
  }
  byId("more").hidden = name !== "speak";
}

// Recording by the microphone

let recorded = null; // a WAV file
let recorder = null;

async function record() {
  if (recorder) return recorder.stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = async ({ data }) => {
      for (const track of stream.getTracks()) track.stop();
      recorder = null;
      byId("record").textContent = "Record";
      recorded = await decoded(data);
      byId("recording").value = "";
      show(recorded);
    };
    recorder.start();
    byId("record").textContent = "Stop recording";
  } catch (error) {
    ended(new Error(`the microphone cannot be used: ${error.message}`));
  }
}

function show(file) {
  byId("recorded").hidden = !file;
  if (file) byId("recorded").src = URL.createObjectURL(file);
}

// Start

const fields = remembered();
byId("text").value = fields.text ?? byId("examples").querySelectorAll("button")[1].textContent;
for (const id of ["pace", "noise", "rhythm"]) {
  const slider = byId(id);
  slider.value = fields[id] ?? slider.value;
  slider.oninput = () => (slider.parentElement.querySelector("output").value = number(Number(slider.value), 2));
  slider.oninput();
}
byId("text").addEventListener("input", count);
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.shiftKey) {
    event.preventDefault();
    speak();
  }
});
byId("speak").onclick = speak;
byId("stop").onclick = () => working?.abort();
byId("convert").onclick = convert;
byId("record").onclick = record;
byId("record").hidden = !navigator.mediaDevices;
byId("recording").onchange = () => show(byId("recording").files[0]);
byId("voice").onchange = () => chooseVoice();
for (const name of ["speak", "convert"]) byId(`tab-${name}`).onclick = () => selectTab(name);
for (const example of byId("examples").querySelectorAll("button")) {
  example.onclick = () => {
    byId("text").value = example.textContent;
    count();
    remember();
  };
}
byId("key-form").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", byId("key").value);
  byId("key-form").hidden = true;
  listVoices().catch(ended);
};
document.addEventListener("change", remember);
document.addEventListener("input", remember);
dark.addEventListener("change", () => latest?.draw());
addEventListener("pagehide", () => working?.abort());
count();
listVoices().catch(ended);
