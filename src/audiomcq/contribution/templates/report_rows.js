// The rows of the report's page: their texts and votes, filters, search, order, download. report.js shows them.
//
// Rows come in two parts. The index has a few small numbers of every row; counts, filters and sorting need nothing
// else. Texts and votes come in pages: with few rows in report.html, else as scripts beside it, which are loaded when
// they are shown or searched. A page that was opened from a disk may load scripts, and nothing else.
"use strict";

const KEPT = 60; // pages of texts in memory
const AHEAD = 4; // pages that are on their way while one is searched
const NO_SCORE = 65535; // in the index
const VERDICTS = ["weak", "strong", "unlabelled"];
const [UNPARSED, HARMED, PLAYED] = [4, 8, 16]; // bits of the state
const FIELDS = [
    "row_key", "source_dataset", "question_type", "id", "audio-contribution", "audio_contribution_score",
    "voters_right", "voters", "unparsed", "harmed_by_audio", "question", "choices", "answer",
];

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("report-data").textContent);
const pageCount = Math.ceil(data.rows / data.page_rows);

let index; // typed arrays: source, type, score, state, right
let facets = [];
let hits = null; // with a search, whether each row matches
let chosen = new Uint32Array(data.rows); // the rows that are left, in the order in which they are shown
let found = 0; // how many of them

// ------------------------------------------------------------------ pages

const pages = new Map(); // promises of texts by number of the page, least recently used first
const arrived = new Map();

// Called by the scripts beside the page
window.reportIndex = (columns) => { data.index = columns; };
window.reportPage = (page, rows) => { arrived.set(page, rows); };

function loadScript(name) {
    return new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.charset = "utf-8";
        script.src = `${data.folder}/${name}`;
        script.onload = () => { script.remove(); resolve(); };
        const problem = `${script.src} cannot be read: keep ${data.folder} beside this page.`;
        script.onerror = () => reject(new Error(problem));
        document.head.append(script);
    });
}

async function loadIndex() {
    if (data.folder) await loadScript("index.js");
    index = {};
    for (const [name, text] of Object.entries(data.index)) {
        const letters = atob(text);
        const bytes = new Uint8Array(letters.length);
        for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
        index[name] = ["state", "right"].includes(name) ? bytes : new Uint16Array(bytes.buffer);
    }
    makeFacets();
}

async function loadPage(page) {
    try {
        await loadScript(`${String(page).padStart(4, "0")}.js`);
        return arrived.get(page);
    } catch (error) {
        pages.delete(page); // so that it can be tried again
        throw error;
    } finally {
        arrived.delete(page);
    }
}

function readPage(page) {
    if (data.pages) return Promise.resolve(data.pages[page - 1]);
    const rows = pages.get(page) ?? loadPage(page);
    pages.delete(page);
    pages.set(page, rows);
    while (pages.size > KEPT) pages.delete(pages.keys().next().value);
    return rows;
}

const pageOf = (row) => Math.floor(row / data.page_rows) + 1;
const keyOf = (row, id) => `${data.types[index.type[row]]}_${data.sources[index.source[row]]}_${id}`;

async function readRow(row) {
    const texts = (await readPage(pageOf(row)))[row % data.page_rows];
    const [id, question, choices, gold, score, clip, votes, written] = texts;
    const state = index.state[row];
    return {
        key: keyOf(row, id), id, source: data.sources[index.source[row]], type: data.types[index.type[row]],
        question, choices, gold, score, clip, votes, written,
        verdict: VERDICTS[state & 3], unparsed: Boolean(state & UNPARSED), harmed: Boolean(state & HARMED),
        right: data.voters.length ? index.right[row] : null,
    };
}

// ------------------------------------------------------------------ filters, order, search

function makeFacets() {
    const flag = (bit) => index.state.map((state) => (state & bit ? 1 : 0));
    const rights = data.voters.map((_, i) => String(i)).concat(String(data.voters.length));
    facets = [
        { title: "Verdict", names: VERDICTS, codes: index.state.map((state) => state & 3) },
        { title: "Audio", names: [null, "harmed by its audio"], codes: flag(HARMED) },
        { title: "Votes", names: [null, "some chose no option"], codes: flag(UNPARSED) },
        { title: "Clip", names: [null, "stored in this page"], codes: flag(PLAYED) },
        { title: `Voters right on ${data.rule.control.replaceAll("_", " ")}`, names: rights, codes: index.right },
        { title: "Type", names: data.types, codes: index.type },
        { title: "Source", names: data.sources, codes: index.source },
    ];
    for (const facet of facets) {
        facet.picked = new Uint8Array(facet.names.length);
        facet.counts = new Uint32Array(facet.names.length);
        for (const code of facet.codes) facet.counts[code]++;
    }
    // What all rows have in common sorts nothing out
    facets = facets.filter((facet) => facet.counts.filter(Boolean).length > 1);
}

// Keeps the rows that pass every filter; a value's count is that of the rows which pass all other filters.
function selectRows() {
    const used = facets.map((facet) => facet.picked.some(Boolean));
    for (const facet of facets) facet.counts.fill(0);
    found = 0;
    for (let row = 0; row < data.rows; row++) {
        if (hits && !hits[row]) continue;
        let failed = null;
        let passes = true;
        for (let i = 0; passes && i < facets.length; i++) {
            const facet = facets[i];
            if (!used[i] || facet.picked[facet.codes[row]]) continue;
            passes = failed === null; // a second filter that it fails
            failed = facet;
        }
        if (!passes) continue;
        if (failed) {
            failed.counts[failed.codes[row]]++;
        } else {
            for (const facet of facets) facet.counts[facet.codes[row]]++;
            chosen[found++] = row;
        }
    }
}

// A row without a score is last, whichever way the others are
const rank = (sign) => (row) => (index.score[row] === NO_SCORE ? NO_SCORE : sign * index.score[row]);
const SORTS = {
    "as given": null,
    "score, lowest first": rank(1),
    "score, highest first": rank(-1),
    "most voters right": (row) => -index.right[row],
    "fewest voters right": (row) => index.right[row],
    "source": (row) => index.source[row],
    "type": (row) => index.type[row],
};

function sortRows() {
    const value = SORTS[byId("sort").value];
    if (!value) return;
    const values = new Int32Array(data.rows);
    for (let i = 0; i < found; i++) values[chosen[i]] = value(chosen[i]);
    chosen.subarray(0, found).sort((one, other) => values[one] - values[other] || one - other);
}

let searches = 0; // a newer search ends an older one

// Marks the rows that hold every word. Calls `told` with the number of searched pages, at times and at the end.
async function search(text, told) {
    const mine = ++searches;
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    hits = words.length ? new Uint8Array(data.rows) : null;
    let since = performance.now();
    for (let page = 1; hits && page <= pageCount; page++) {
        for (let next = page; next <= Math.min(page + AHEAD, pageCount); next++) readPage(next).catch(() => {});
        const rows = await readPage(page);
        if (mine !== searches) return;
        const start = (page - 1) * data.page_rows;
        rows.forEach(([id, question, choices], i) => {
            const texts = `${id}\n${question}\n${choices.join("\n")}`.toLowerCase();
            hits[start + i] = words.every((word) => texts.includes(word)) || keyOf(start + i, id) === text;
        });
        if (performance.now() - since > 400) {
            since = performance.now();
            told(page);
        }
    }
    told(pageCount);
}

// ------------------------------------------------------------------ download

// Returns the chosen rows as a file, in the order of the pages. Calls `told` with the number of the page it reads.
async function collect(format, told) {
    const csv = format === "csv";
    let parts = csv ? [`${FIELDS.join(",")}\r\n`] : [];
    for (const [i, row] of chosen.slice(0, found).sort().entries()) {
        if (i % 5000 === 0) {
            parts = [new Blob(parts)]; // which need not be in memory
            told(pageOf(row));
        }
        const values = fieldsOf(await readRow(row));
        parts.push(csv ? `${Object.values(values).map(toCell).join(",")}\r\n` : `${JSON.stringify(values)}\n`);
    }
    return new Blob(parts, { type: csv ? "text/csv" : "application/jsonl" });
}

function fieldsOf(row) {
    const label = row.verdict === "unlabelled" ? null : row.verdict;
    const values = [row.key, row.source, row.type, row.id, label, row.score, row.right, data.voters.length,
        row.unparsed, row.harmed, row.question, row.choices, row.choices[row.gold]];
    return Object.fromEntries(FIELDS.map((name, i) => [name, values[i]]));
}

function toCell(value) {
    const text = value === null ? "" : Array.isArray(value) ? JSON.stringify(value) : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
