// What is seen of the report's page: filters, rows, clips, keyboard. report_rows.js stands above in the same script.
//
// Texts of rows are only ever set as text, never as markup.

const VIEW = 50; // rows on the screen
const clips = JSON.parse(byId("report-clips").textContent); // base64 by row key
const player = byId("player");
const control = data.rule.control.replaceAll("_", " ");
const number = new Intl.NumberFormat("en-US");

let first = 0; // place of the first row on the screen
let current = -1; // place of the row that the keyboard is at

// ------------------------------------------------------------------ filters and counts

function make(tag, kind, text) {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    if (text !== undefined) element.textContent = text;
    return element;
}

function drawFacet(facet) {
    const box = make("fieldset");
    const values = make("div", "values");
    facet.labels = facet.names.map((name, code) => {
        if (name === null || !facet.counts[code]) return null;
        const [label, tick] = [make("label"), make("input")];
        tick.type = "checkbox";
        tick.addEventListener("change", () => { facet.picked[code] = tick.checked; update(); });
        const text = make("bdi", facet.names === VERDICTS ? name : "", name || "(none)");
        text.title = name;
        label.append(tick, text, make("b"));
        values.append(label);
        return label;
    });
    box.append(make("legend", "", facet.title), values);
    return box;
}

// Anew after every change of search, filters or order
function update() {
    selectRows();
    sortRows();
    [first, current] = [0, -1];
    drawCounts();
    return draw();
}

function drawCounts() {
    byId("count").replaceChildren(`${number.format(found)} row${found === 1 ? "" : "s"}`);
    if (found < data.rows) byId("count").append(make("span", "", ` of ${number.format(data.rows)}`));
    const totals = [0, 0, 0];
    for (let i = 0; i < found; i++) totals[index.state[chosen[i]] & 3]++;
    VERDICTS.forEach((name, i) => {
        byId("balance").children[i].style.width = `${found ? (100 * totals[i]) / found : 0}%`;
        if (totals[i]) byId("count").append(make("span", "", ` · ${number.format(totals[i])} ${name}`));
    });
    let picked = 0;
    for (const facet of facets) {
        facet.labels.forEach((label, code) => {
            if (!label) return;
            label.lastChild.textContent = number.format(facet.counts[code]);
            label.classList.toggle("empty", !facet.counts[code]);
        });
        picked += facet.picked.reduce((sum, one) => sum + one, 0);
    }
    byId("filtered").textContent = picked ? `(${picked})` : "";
    byId("clear").hidden = !picked && !hits;
    byId("none").hidden = found > 0 || !byId("progress").hidden; // a search may yet find some
}

function clearAll() {
    for (const facet of facets) facet.picked.fill(0);
    for (const tick of byId("facets").querySelectorAll("input")) tick.checked = false;
    byId("search").value = "";
    find();
}

async function find() {
    try {
        await search(byId("search").value.trim(), (page) => { tell("searched", page); update(); });
    } catch (error) {
        report(error);
    }
}

// Says how far a search or a download is, until it is done.
function tell(done, page) {
    byId("progress").hidden = page === pageCount;
    const rows = Math.min(page * data.page_rows, data.rows);
    Object.assign(byId("progress").querySelector("progress"), { value: page, max: pageCount });
    byId("progress").querySelector("span").textContent =
        `${done} ${number.format(rows)} of ${number.format(data.rows)} rows`;
}

async function download(format) {
    try {
        const link = make("a");
        link.href = URL.createObjectURL(await collect(format, (page) => tell("collected", page)));
        link.download = `rows.${format}`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (error) {
        report(error);
    } finally {
        tell("collected", pageCount);
    }
}

// ------------------------------------------------------------------ rows

let drawings = 0;

async function draw() {
    const mine = ++drawings;
    const places = Array.from({ length: Math.max(0, Math.min(VIEW, found - first)) }, (_, i) => first + i);
    try {
        const rows = await Promise.all(places.map((place) => readRow(chosen[place])));
        if (mine !== drawings) return; // something newer is to be seen
        stop();
        byId("list").replaceChildren(...rows.map((row, i) => drawRow(row, places[i])));
        byId("problem").hidden = true;
    } catch (error) {
        report(error);
    }
    const last = first + places.length;
    byId("place").textContent = found ? `${number.format(first + 1)} – ${number.format(last)}` : "";
    byId("before").disabled = first === 0;
    byId("after").disabled = last >= found;
}

function report(error) {
    byId("problem").textContent = error.message;
    byId("problem").hidden = false;
}

function drawRow(row, place) {
    const item = make("li", `row ${row.verdict}`);
    item.tabIndex = -1;
    item.dataset.place = place;
    item.addEventListener("click", () => mark(place));
    const head = make("div", "head");
    head.append(make("span", "verdict", row.verdict));
    if (row.score !== null) head.append(make("span", "", `score ${row.score.toFixed(2)}`));
    if (row.right !== null) head.append(make("span", "", `${row.right} of ${data.voters.length} right on ${control}`));
    if (row.harmed) head.append(make("span", "flag", "harmed by its audio"));
    head.append(make("bdi", "key", row.key));
    const text = make("div");
    const question = make("p", "question", row.question);
    question.dir = "auto";
    text.append(drawPlay(row, text), question, drawOptions(row));
    if (row.written) text.append(drawWritten(row));
    item.append(head, text);
    if (row.votes) item.append(drawVotes(row));
    return item;
}

const letter = (option) => String.fromCharCode(65 + option);

function drawOptions(row) {
    const list = make("ol", "options");
    row.choices.forEach((choice, i) => {
        const item = make("li", i === row.gold ? "gold" : "");
        const text = make("bdi", "", choice);
        text.dir = "auto";
        item.append(make("i", "", letter(i)), text);
        list.append(item);
    });
    return list;
}

function drawPlay(row, box) {
    const button = make("button", "play", "▶");
    button.type = "button";
    button.disabled = !clips[row.key] && row.clip === null;
    button.title = button.disabled ? "the clip is not at hand" : "play the clip";
    button.addEventListener("click", () => (button.classList.contains("on") ? stop() : play(row, box, button)));
    return button;
}

function drawVotes(row) {
    const [table, head] = [make("table", "votes"), make("tr")];
    head.append(make("th"), ...data.controls.map((control) => {
        const cell = make("th", "", control.replaceAll("_", " "));
        cell.dataset.control = control;
        return cell;
    }));
    table.append(make("thead"), make("tbody"));
    table.tHead.append(head);
    const cells = row.votes.split(" ");
    data.voters.forEach((voter, i) => {
        const line = make("tr");
        line.append(make("th", "", voter));
        data.controls.forEach((_, j) => line.append(drawCell(row, cells[i * data.controls.length + j])));
        table.tBodies[0].append(line);
    });
    const box = make("div", "wide-votes");
    box.append(table);
    return box;
}

// What one voter chose under one control: an option, or in several orders several, each with the number of orders.
function drawCell(row, votes) {
    const cell = make("td");
    const gold = String.fromCharCode(97 + row.gold);
    const counts = new Map();
    for (const vote of votes) counts.set(vote, (counts.get(vote) || 0) + 1);
    const rank = ([vote, count]) => (vote === gold ? -Infinity : -count);
    for (const [vote, count] of [...counts].sort((one, other) => rank(one) - rank(other))) {
        const part = make(vote === gold ? "b" : "?-".includes(vote) ? "em" : "span", "", vote.toUpperCase());
        if (vote === gold) part.append("✓");
        if (counts.size > 1) part.append(make("small", "", count));
        cell.append(part);
    }
    const texts = { "?": "an answer that cannot be read", "-": "an answer that abstains" };
    cell.title = [...votes].map((vote) => texts[vote] ?? row.choices[vote.charCodeAt(0) - 97]).join(", ");
    return cell;
}

function drawWritten(row) {
    const box = make("details", "written");
    const list = make("ul");
    for (const voter of data.voters) {
        for (const [control, text] of Object.entries(row.written[voter] || {})) {
            const item = make("li", "", `${voter}, ${control.replaceAll("_", " ")}: `);
            const code = make("code", "", text);
            code.dir = "auto";
            item.append(code);
            list.append(item);
        }
    }
    box.append(make("summary", "", "what they wrote"), list);
    return box;
}

// ------------------------------------------------------------------ clips

function stop() {
    player.onerror = null;
    player.pause();
    player.hidden = true;
    byId("rows").append(player);
    for (const button of document.querySelectorAll(".play.on")) {
        button.classList.remove("on");
        button.textContent = "▶";
    }
}

function play(row, box, button) {
    stop();
    const path = [data.clips, row.clip].filter(Boolean).join("/");
    const stored = clips[row.key];
    const link = path.split("/").map(encodeURIComponent).join("/");
    player.src = stored ? `data:audio/mpeg;base64,${stored}` : `./${link}`;
    player.onerror = () => {
        stop();
        button.disabled = true;
        box.append(make("p", "note", `the clip is not at hand: ${path}`));
    };
    button.classList.add("on");
    button.textContent = "■";
    box.insertBefore(player, box.querySelector(".written"));
    player.hidden = false;
    player.play().catch(() => {}); // stopped before it began; a missing clip is told by onerror
}

function playCurrent() {
    const item = itemAt(current);
    if (!item?.contains(player)) item?.querySelector(".play").click();
    else if (player.paused) player.play();
    else player.pause();
}

// ------------------------------------------------------------------ keyboard

const itemAt = (place) => document.querySelector(`.row[data-place="${place}"]`);

function mark(place) {
    itemAt(current)?.removeAttribute("aria-current");
    current = place;
    itemAt(current)?.setAttribute("aria-current", "true");
}

async function move(step) {
    const place = Math.max(0, Math.min(found - 1, current < 0 ? first : current + step));
    if (!found) return;
    if (place < first || place >= first + VIEW) await turn(Math.floor(place / VIEW) - first / VIEW, false);
    mark(place);
    itemAt(place)?.focus({ preventScroll: true });
    itemAt(place)?.scrollIntoView({ block: "nearest" });
}

async function turn(step, scroll = true) {
    const next = first + step * VIEW;
    if (next < 0 || next >= found) return;
    [first, current] = [next, -1];
    await draw();
    if (scroll) byId("found").scrollIntoView({ block: "start" });
}

const KEYS = {
    "/": () => { show("rows"); byId("search").focus(); byId("search").select(); },
    "j": () => move(1), "ArrowDown": () => move(1), "k": () => move(-1), "ArrowUp": () => move(-1),
    "ArrowRight": () => turn(1), "ArrowLeft": () => turn(-1), " ": playCurrent,
};

function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("#search, select")) {
        if (event.key === "Escape") event.target.blur();
        if (event.key !== "Enter" || event.target !== byId("search")) return;
        event.target.blur();
        move(1);
    } else if (KEYS[event.key] && (event.key === "/" || !byId("rows").hidden)) {
        // Space has a meaning of its own on what it presses, arrows on the player
        if (event.target.closest(event.key === " " ? "button, summary, audio, input" : "audio")) return;
        event.preventDefault();
        KEYS[event.key]();
    }
}

// ------------------------------------------------------------------ the page

function show(view) {
    for (const name of ["rows", "figures"]) byId(name).hidden = name !== view;
    for (const tab of document.querySelectorAll(".tab")) {
        tab.setAttribute("aria-pressed", String(tab.dataset.view === view));
    }
}

// A browser may keep nothing for pages from a disk, or refuse to
function remember(theme) {
    try {
        if (theme) localStorage.setItem("audiomcq-theme", theme);
        return localStorage.getItem("audiomcq-theme");
    } catch {
        return theme;
    }
}

function changeTheme() {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const root = document.documentElement;
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    remember(root.dataset.theme);
}

async function start() {
    const theme = remember();
    if (theme) document.documentElement.dataset.theme = theme;
    show("rows");
    byId("filters").open = matchMedia("(min-width: 46rem)").matches;
    let typed;
    byId("search").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(find, 150); });
    byId("sort").addEventListener("change", update);
    for (const id of ["clear", "again"]) byId(id).addEventListener("click", clearAll);
    byId("before").addEventListener("click", () => turn(-1));
    byId("after").addEventListener("click", () => turn(1));
    byId("theme").addEventListener("click", changeTheme);
    for (const tab of document.querySelectorAll(".tab")) tab.addEventListener("click", () => show(tab.dataset.view));
    for (const button of document.querySelectorAll("[data-format]")) {
        button.addEventListener("click", () => download(button.dataset.format));
    }
    document.addEventListener("keydown", press);
    try {
        await loadIndex();
    } catch (error) {
        report(error);
        return;
    }
    byId("facets").append(...facets.map(drawFacet));
    const scored = index.score.some((score) => score !== NO_SCORE);
    const there = (name) => (scored || !name.includes("score")) && (data.voters.length || !name.includes("voters"));
    byId("sort").append(...Object.keys(SORTS).filter(there).map((name) => new Option(name, name)));
    await update();
    document.body.dataset.ready = "true";
}

start();
