// What takes the password: configuration and sound, the requests of apmpi/tools/web/editing.py.

const byId = id => document.getElementById(id);
let csrf = null;
let version = ""; // of the text that is edited; "" before it is loaded
let hasBefore = false;

// Returns the answer's content; one that is not 200 has a problem, a sentence.
async function ask(method, path, content) {
  const headers = csrf === null ? {} : {"X-CSRF-Token": csrf};
  const request = {method, headers};
  if (content !== undefined) {
    headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(content);
  }
  try {
    const answer = await fetch(path, request);
    const told = await answer.json();
    if (answer.status === 401) await showSession();
    return told;
  } catch {
    return {problem: "no connection to the device"};
  }
}

function say(text, wrong = false) {
  byId("result").textContent = text;
  byId("result").className = wrong ? "bad" : "good";
}

async function showSession() {
  const {how = "", csrf: token = null, problem = ""} = await ask("GET", "session");
  csrf = token;
  byId("how").textContent = how || problem;
  byId("how").hidden = !(how || problem);
  byId("sign-in").hidden = csrf !== null || how !== "" || problem !== "";
  byId("editor").hidden = byId("listening").hidden = csrf === null;
  // After a session that has ended the text is still there, with its changes.
  if (csrf !== null && version === "") await load();
}

async function load() {
  const shown = await ask("GET", "configuration");
  if (shown.problem) say(shown.problem, true);
  else show(shown);
}

function show({path, text, version: shownVersion, before, settings}) {
  version = shownVersion;
  hasBefore = before;
  byId("path").textContent = path;
  byId("text").value = text;
  byId("put-back").disabled = !hasBefore;
  const rows = settings.map(cells => {
    const row = document.createElement("tr");
    for (const text of cells) row.append(Object.assign(document.createElement("td"), {textContent: text}));
    return row;
  });
  byId("settings").tBodies[0].replaceChildren(...rows);
}

// Selects the line that a problem names, as in "/etc/apmpi/apmpi.yaml:5: ...".
function select(problem) {
  const found = /^[^:]+:(\d+): /.exec(problem);
  if (!found) return;
  const area = byId("text"), lines = area.value.split("\n"), number = Number(found[1]) - 1;
  const begin = lines.slice(0, number).join("\n").length + (number > 0 ? 1 : 0);
  area.focus();
  area.setSelectionRange(begin, begin + (lines[number] ?? "").length);
}

async function change(path, content) {
  for (const button of byId("editor").querySelectorAll("button")) button.disabled = true;
  say("");
  const done = await ask("POST", path, content);
  for (const button of byId("editor").querySelectorAll("button")) button.disabled = false;
  byId("put-back").disabled = !hasBefore;
  if (done.problem) {
    say(done.problem, true);
    select(done.problem);
  } else {
    show(done);
    say(done.sentence);
  }
}

byId("sign-in").addEventListener("submit", async event => {
  event.preventDefault();
  const {problem} = await ask("POST", "session", {password: byId("password").value});
  byId("password").value = "";
  say(problem ?? "", true);
  if (!problem) {
    await showSession();
    byId("text").focus();
  }
});
byId("editor").addEventListener("submit", event => {
  event.preventDefault();
  change("configuration", {text: byId("text").value, version});
});
byId("put-back").addEventListener("click", () => change("configuration/before", {version}));
byId("load").addEventListener("click", async () => { say(""); await load(); });
byId("sign-out").addEventListener("click", async () => {
  await ask("DELETE", "session");
  byId("text").value = version = "";
  clearPlayers();
  say("signed out");
  await showSession();
});

// ---- sound

const TITLES = {microphone: "Before: the microphone", output: "After: the output"};

// Players of one time: each goes on where the last one was.
async function showPlayers(signals) {
  const labels = [];
  let last = null;
  for (const signal of signals) {
    const answer = await fetch(`sound/${signal}`);
    if (!answer.ok) return say((await answer.json()).problem, true);
    const player = document.createElement("audio");
    player.controls = true;
    player.src = URL.createObjectURL(await answer.blob());
    player.addEventListener("play", () => {
      if (last !== null && last !== player) {
        last.pause();
        player.currentTime = last.currentTime;
      }
      last = player;
    });
    const label = document.createElement("label");
    label.append(TITLES[signal] ?? signal, player);
    labels.push(label);
  }
  clearPlayers();
  byId("players").append(...labels);
  say("recorded; the device keeps it in memory for ten minutes");
}

function clearPlayers() {
  for (const player of byId("players").querySelectorAll("audio")) URL.revokeObjectURL(player.src);
  byId("players").replaceChildren();
}

byId("record").addEventListener("click", async () => {
  byId("record").disabled = true;
  say("recording for ten seconds");
  const {problem, signals} = await ask("POST", "sound");
  if (problem) say(problem, true);
  else await showPlayers(signals);
  byId("record").disabled = false;
});

showSession();
