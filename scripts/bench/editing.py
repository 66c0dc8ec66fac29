#!/usr/bin/env python3
"""Guessing ahead where it pays: the model repeats about 300 tokens of code with one small edit; tokens a second with speculation
over without.

    editing.py MODEL.gguf [--rounds 5] [--threads N] [--max-tokens 400] [--show]

Two servers stand side by side, one with engine.speculation off; requests go to one at a time, in turns, so that both meet the same
states of the machine (the idle one sleeps). Greedy, streamed, to the answer's own end. Two figures a case: tokens a second between
the first token and the last, and of the whole request. Both texts must be the same, byte for byte: guessing never changes an answer.
"""
import argparse, http.client, json, sys, time

from common import Load, Server, model_name, quernd, ratio, say, spread, table

CODE = '''#include <stdlib.h>
#include <string.h>

struct node {
    struct node *next;
    char *key;
    int value;
};

struct map {
    struct node **slots;
    size_t n_slots;
    size_t n_keys;
};

static size_t slot_of(const struct map *m, const char *key) {
    size_t h = 5381;
    for (const char *p = key; *p; p++) h = h * 33 + (unsigned char)*p;
    return h % m->n_slots;
}

struct node *map_find(const struct map *m, const char *key) {
    struct node *n = m->slots[slot_of(m, key)];
    while (n && strcmp(n->key, key) != 0) n = n->next;
    return n;
}

int map_put(struct map *m, const char *key, int value) {
    struct node *n = map_find(m, key);
    if (!n) {
        size_t at = slot_of(m, key);
        n = calloc(1, sizeof *n);
        if (!n) return -1;
        n->key = strdup(key);
        n->next = m->slots[at];
        m->slots[at] = n;
        m->n_keys++;
    }
    n->value = value;
    return 0;
}
'''
ASK = "Here is a C file:\n\n```c\n" + CODE + "```\n\n{edit} Answer with the whole file and nothing else."
EDITS = ("Rename the field `value` of struct node to `count`.", "Change the constant 5381 to 5387.", "Rename the function map_put to map_set.")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--max-tokens", type=int, default=400)
    p.add_argument("--show", action="store_true", help="the text of every edit, for the curious")
    return p.parse_args()


def ask(server, edit, max_tokens):
    """text, tokens a second after the first event, tokens a second of the request, "guessed right of all"."""
    body = {"model": "m", "messages": [{"role": "user", "content": ASK.replace("{edit}", edit)}], "temperature": 0, "max_tokens": max_tokens,
            "stream": True, "stream_options": {"include_usage": True}}
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    begin = time.perf_counter()
    c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    r, text, usage, first = c.getresponse(), "", None, None
    if r.status != 200:
        sys.exit(f"{server.name}: {r.status} {r.read()[:300]!r}")
    for line in r:
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            piece = "".join(x["delta"].get("content") or "" for x in chunk["choices"])
            if piece and first is None:
                first = time.perf_counter()
            text += piece
    end, n = time.perf_counter(), usage["completion_tokens"]
    return text, (n - 1) / (end - first), n / (end - begin), f"{usage['completion_tokens_details']['accepted_prediction_tokens']} of {n}"


def main():
    a = arguments()
    flags = ["--threads", str(a.threads)] if a.threads else []
    with Load(), Server(quernd(a.model, *flags), "guessing") as on, Server(quernd(a.model, *flags, "--set", "engine.speculation=false"), "plain") as off:
        rows = []
        for edit in EDITS:
            got = {on: [], off: []}
            for s in (on, off):
                ask(s, edit, 2)  # the prompt is in the cache for all rounds
            for i in range(a.rounds):
                say(f"{model_name(a.model)}, round {i + 1}: {edit}")
                for s in (on, off) if i % 2 == 0 else (off, on):
                    got[s].append(ask(s, edit, a.max_tokens))
            texts = {x[0] for s in (on, off) for x in got[s]}
            if a.show:
                print(got[on][0][0], file=sys.stderr)
            if len(texts) != 1:
                sys.exit(f"'{edit}': guessing ahead changed the answer")
            of = lambda s, k: [x[k] for x in got[s]]
            rows.append([edit.replace("|", "\\|"), got[on][0][3], spread(of(off, 1)), spread(of(on, 1)), ratio(of(on, 1), of(off, 1)),
                         ratio(of(on, 2), of(off, 2))])
        table([f"{model_name(a.model)}: edit", "guessed right", "plain, tokens/s", "guessing, tokens/s", "ratio", "ratio, whole request"], rows)
        print("Both texts are the same in every round.\n")


if __name__ == "__main__":
    main()
