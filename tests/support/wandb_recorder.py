#!/usr/bin/env python3
"""wandb_recorder.py - a small recording stand-in for a W&B server (test oracle).

Standard library only (Python >= 3.9).  Binds 127.0.0.1 and nothing else.

WHAT IT DOES
  * Answers the HTTP API that a W&B client needs to create, feed, finish and resume runs:
        POST /graphql                                  (viewer, serverInfo, upsertBucket,
                                                        resume status, createRunFiles, artifacts ...)
        POST /files/{entity}/{project}/{run}/file_stream
        PUT  /storage/...                              (the "signed" upload URLs it hands out)
        GET  /storage/...                              (read an uploaded file back)
  * Keeps a model of every run (config, history lines, summary, console lines, system events,
    files, state, exit code) the way the backend would, so a resumed run gets right offsets.
  * Checks each request and keeps a list of protocol VIOLATIONS per run
    (offset gaps, non-JSON lines, missing _step, data after complete, missing auth, bad config shape...).
    Violations never change the answer: they are for a test to assert on.
  * Records every request (JSON lines) so that two clients can be compared.

START
    python3 wandb_recorder.py --port 8899 --out recording.jsonl
    python3 wandb_recorder.py --port 0 --port-file /tmp/port      # ephemeral port, written to a file
  The first line on stdout is  "LISTENING http://127.0.0.1:PORT".
  Point the official client:
    WANDB_BASE_URL=http://127.0.0.1:8899 WANDB_API_KEY=$(printf 'a%.0s' $(seq 40)) python train.py
  Any key of >= 40 characters is accepted, but 'b'*40 answers 401 and 'c'*40 answers 403.

OPTIONS
    --port N            port (0 = any free one)          --port-file F   write the port number there
    --out F             append each request as one JSON line (default: memory only)
    --entity NAME       default entity of the viewer (default "testuser")
    --files-dir D       also store uploaded files there (default: memory only)
    --lenient           unknown GraphQL fields answer null instead of a 400 error
    --gzip              advertise the FILESTREAM_GZIP server feature (clients may then gzip bodies)
    --structured-logs   advertise STRUCTURED_CONSOLE_LOGS (console lines become small JSON objects)
    --max-body N        keep at most N characters of a non-JSON body in the record (default 400)
    --crash-after S     a running run without any file_stream request for S seconds shows state
                        "crashed" in the model (default 300, as the real service: about 5 minutes)

CONTROL ENDPOINTS (JSON; never recorded)
    GET  /__recorder/health            {"ok": true, "held": requests that a fault's delay keeps without an answer}
    GET  /__recorder/requests          all recorded requests (?label=... filters)
    GET  /__recorder/state             all runs as the "server" sees them
    GET  /__recorder/run/E/P/R         one run
    POST /__recorder/mark   {"label": "online-1"}      label the requests that follow
    POST /__recorder/faults {"match": "file_stream", "status": 429, "times": 2,
                             "headers": {"Retry-After": "1"}, "body": {"error": "x"},
                             "delay": 0.0, "drop": false}
                                       the next `times` requests whose "METHOD path operation" contains
                                       `match` get this answer instead (drop = close the connection);
                                       {"clear": true} removes all faults
    POST /__recorder/stop/E/P/R        file_stream answers {"stopped": true} for that run from now on
    POST /__recorder/options {"gzip": true, "lenient": true, "structured_logs": true, "crash_after": 60}
    POST /__recorder/reset             forget runs, requests, faults
    POST /__recorder/shutdown          end the server

RECORD FORMAT (one JSON object per line)
    seq, t (unix seconds), label, method, path, query, headers (Authorization reduced to scheme, user
    and key length), body (decoded JSON, or {"bytes","sha256","md5_b64","head"} for other bodies),
    gzip (true when the body was compressed),
    gql {"operation","kind","fields","variables"} for /graphql,
    status, response (JSON) , fault (true when injected)

COMPARE TWO CLIENTS
    python3 wandb_recorder.py --summarize recording.jsonl           # one line per request
    python3 wandb_recorder.py --normalize recording.jsonl           # volatile parts masked, for diff

LIMITS: this is a model, not W&B.  Only what clients send is authoritative; what the real backend
answers was taken from the official client's sources and its tests, not from a live server.
"""

import argparse
import base64
import contextlib
import gzip
import hashlib
import json
import os
import random
import re
import string
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# --------------------------------------------------------------------------------------------
# A very small GraphQL reader (enough for client documents: operations, fragments, variables,
# aliases, arguments, @include/@skip).
# --------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\s+|,|\ufeff|#[^\n]*"
    r"|(?P<spread>\.\.\.)"
    r"|(?P<name>[_A-Za-z][_0-9A-Za-z]*)"
    r"|(?P<num>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r'|(?P<bstr>"""(?:.|\n)*?""")'
    r'|(?P<str>"(?:[^"\\\n]|\\.)*")'
    r"|(?P<p>[!$&()\[\]{}:=@|])"
)


class GqlError(Exception):
    def __init__(self, message, status=400, extensions=None):
        super().__init__(message)
        self.status = status
        self.extensions = extensions


class GqlDoc:
    def __init__(self, text):
        self.toks = []
        pos = 0
        while pos < len(text):
            m = _TOKEN.match(text, pos)
            if not m:
                raise GqlError(f"Syntax Error: unexpected character at {pos}")
            pos = m.end()
            if m.lastgroup:
                self.toks.append((m.lastgroup, m.group(m.lastgroup)))
        self.i = 0
        self.ops, self.frags = [], {}
        while self.i < len(self.toks):
            if self.peek() == ("p", "{"):
                self.ops.append({"kind": "query", "name": None, "vars": {}, "sel": self.selset()})
            else:
                kw = self.name()
                if kw in ("query", "mutation", "subscription"):
                    name = self.name() if self.peek()[0] == "name" else None
                    vars_ = self.vardefs() if self.peek() == ("p", "(") else {}
                    self.directives()
                    self.ops.append({"kind": kw, "name": name, "vars": vars_, "sel": self.selset()})
                elif kw == "fragment":
                    fname = self.name()
                    self.expect("name", "on")
                    ftype = self.name()
                    self.directives()
                    self.frags[fname] = {"on": ftype, "sel": self.selset()}
                else:
                    raise GqlError(f"Syntax Error: unexpected {kw!r}")

    def peek(self):
        return self.toks[self.i] if self.i < len(self.toks) else ("eof", "")

    def next(self):
        t = self.peek()
        self.i += 1
        return t

    def expect(self, kind, val):
        t = self.next()
        if t != (kind, val):
            raise GqlError(f"Syntax Error: expected {val!r}, found {t[1]!r}")

    def name(self):
        k, v = self.next()
        if k != "name":
            raise GqlError(f"Syntax Error: expected a name, found {v!r}")
        return v

    def vardefs(self):
        out = {}
        self.expect("p", "(")
        while self.peek() != ("p", ")"):
            self.expect("p", "$")
            n = self.name()
            self.expect("p", ":")
            t = self.type()
            default = None
            if self.peek() == ("p", "="):
                self.next()
                default = self.value()
            out[n] = {"type": t, "default": default}
            self.directives()
        self.next()
        return out

    def type(self):
        if self.peek() == ("p", "["):
            self.next()
            t = "[" + self.type() + "]"
            self.expect("p", "]")
        else:
            t = self.name()
        if self.peek() == ("p", "!"):
            self.next()
            t += "!"
        return t

    def args(self):
        out = {}
        if self.peek() == ("p", "("):
            self.next()
            while self.peek() != ("p", ")"):
                n = self.name()
                self.expect("p", ":")
                out[n] = self.value()
            self.next()
        return out

    def value(self):
        k, v = self.next()
        if (k, v) == ("p", "$"):
            return ("var", self.name())
        if (k, v) == ("p", "["):
            out = []
            while self.peek() != ("p", "]"):
                out.append(self.value())
            self.next()
            return ("list", out)
        if (k, v) == ("p", "{"):
            out = {}
            while self.peek() != ("p", "}"):
                n = self.name()
                self.expect("p", ":")
                out[n] = self.value()
            self.next()
            return ("obj", out)
        if k == "str":
            return ("const", json.loads(v))
        if k == "bstr":
            return ("const", v[3:-3])
        if k == "num":
            return ("const", json.loads(v))
        if k == "name":
            return ("const", {"true": True, "false": False, "null": None}.get(v, v))
        raise GqlError(f"Syntax Error: unexpected {v!r}")

    def directives(self):
        out = []
        while self.peek() == ("p", "@"):
            self.next()
            out.append((self.name(), self.args()))
        return out

    def selset(self):
        self.expect("p", "{")
        out = []
        while self.peek() != ("p", "}"):
            if self.peek()[0] == "spread":
                self.next()
                if self.peek() == ("name", "on"):
                    self.next()
                    t = self.name()
                    d = self.directives()
                    out.append({"inline": t, "dirs": d, "sel": self.selset()})
                elif self.peek() == ("p", "{") or self.peek() == ("p", "@"):
                    d = self.directives()
                    out.append({"inline": None, "dirs": d, "sel": self.selset()})
                else:
                    n = self.name()
                    out.append({"spread": n, "dirs": self.directives()})
                continue
            n = self.name()
            alias = n
            if self.peek() == ("p", ":"):
                self.next()
                alias, n = n, self.name()
            a = self.args()
            d = self.directives()
            sel = self.selset() if self.peek() == ("p", "{") else None
            out.append({"field": n, "alias": alias, "args": a, "dirs": d, "sel": sel})
        self.next()
        return out


def gql_eval(v, variables):
    kind, x = v
    if kind == "var":
        return variables.get(x)
    if kind == "list":
        return [gql_eval(i, variables) for i in x]
    if kind == "obj":
        # A variable that was not supplied leaves the input field unset.
        return {k: gql_eval(i, variables) for k, i in x.items() if not (i[0] == "var" and i[1] not in variables)}
    return x


def gql_project(value, sel, doc, variables, lenient, path=""):
    """Cut `value` down to the selection set; callables are fields with arguments."""
    if isinstance(value, list):
        return [gql_project(v, sel, doc, variables, lenient, path) for v in value]
    if value is None:
        return None
    if sel is None:
        if isinstance(value, dict) and "__typename" in value:
            raise GqlError(f'Field "{path}" of type "{value["__typename"]}" must have a selection of subfields.')
        return value
    if not isinstance(value, dict):
        raise GqlError(f'Field "{path}" must not have a selection since it has no subfields.')
    out = {}
    for s in sel:
        skip = False
        for dname, dargs in s["dirs"]:
            cond = gql_eval(dargs.get("if", ("const", True)), variables)
            skip |= (dname == "include" and not cond) or (dname == "skip" and cond)
        if skip:
            continue
        if "spread" in s:
            frag = doc.frags.get(s["spread"])
            if frag is None:
                raise GqlError(f'Unknown fragment "{s["spread"]}".')
            out.update(gql_project(value, frag["sel"], doc, variables, lenient, path))
            continue
        if "inline" in s:
            if s["inline"] in (None, value.get("__typename")):
                out.update(gql_project(value, s["sel"], doc, variables, lenient, path))
            continue
        f = s["field"]
        if f not in value:
            if lenient:
                out[s["alias"]] = None
                continue
            raise GqlError(f'Cannot query field "{f}" on type "{value.get("__typename", "?")}".')
        v = value[f]
        if callable(v):
            v = v({k: gql_eval(a, variables) for k, a in s["args"].items()})
        out[s["alias"]] = gql_project(v, s["sel"], doc, variables, lenient, f)
    return out


# --------------------------------------------------------------------------------------------
# The model of the backend
# --------------------------------------------------------------------------------------------

HISTORY, EVENTS, SUMMARY, OUTPUT = ("wandb-history.jsonl", "wandb-events.jsonl", "wandb-summary.json", "output.log")
KNOWN_STREAM_FILES = {HISTORY, EVENTS, SUMMARY, OUTPUT}
# Keys that the official clients put in a file_stream body; anything else is reported.
KNOWN_STREAM_KEYS = {"files", "uploaded", "preempting", "complete", "exitcode", "dropped", "failed"}

UPSERT_INPUT = {
    "id",
    "name",
    "groupName",
    "modelName",
    "entityName",
    "description",
    "displayName",
    "notes",
    "config",
    "commit",
    "host",
    "debug",
    "jobProgram",
    "jobRepo",
    "jobType",
    "state",
    "sweep",
    "tags",
    "summaryMetrics",
    "clientMutationId",
    "framework",
    "shouldStop",
    "defaultColorIndex",
}


def b64id(*parts):
    return base64.b64encode(":".join(parts).encode()).decode()


def loads_ext(text):
    """JSON with NaN / Infinity / -Infinity allowed, as the W&B clients write them."""
    return json.loads(text)


class Run:
    def __init__(self, srv, entity, project, name):
        self.srv, self.entity, self.project, self.name = srv, entity, project, name
        self.id = b64id("Run", "v1", name, project, entity)
        self.created = time.time()
        self.display_name = None
        self.fields = {}  # groupName, jobType, notes, host, commit, jobProgram ...
        self.tags = []
        self.config = {}
        self.summary = {}
        self.history, self.events, self.output = [], [], []
        self.files = {}  # name -> {"size","sha256","md5","uploads"}
        self.uploaded_reported = []
        self.state = "pending"
        self.exitcode = None
        self.preempting = False
        self.stop_requested = False
        self.last_stream = None
        self.upserts = 0
        self.stream_requests = 0
        self.heartbeats = 0
        self.violations = []
        self.alerts = []

    def bad(self, msg):
        self.violations.append(msg)

    def visible_state(self):
        if self.state == "running" and self.last_stream and time.time() - self.last_stream > self.srv.opts.crash_after:
            return "preempted" if self.preempting else "crashed"
        return self.state

    def dump(self):
        return {
            "entity": self.entity,
            "project": self.project,
            "name": self.name,
            "id": self.id,
            "displayName": self.display_name,
            "state": self.visible_state(),
            "exitcode": self.exitcode,
            "tags": self.tags,
            "fields": self.fields,
            "config": self.config,
            "summary": self.summary,
            "history": self.history,
            "events": self.events,
            "output": self.output,
            "files": self.files,
            "uploaded_reported": self.uploaded_reported,
            "preempting": self.preempting,
            "upserts": self.upserts,
            "stream_requests": self.stream_requests,
            "heartbeats": self.heartbeats,
            "alerts": self.alerts,
            "violations": self.violations,
        }

    # -- what GraphQL sees ---------------------------------------------------------------
    def gql(self):
        return {
            "__typename": "Run",
            "id": self.id,
            "name": self.name,
            "displayName": self.display_name,
            "description": self.fields.get("description"),
            "notes": self.fields.get("notes"),
            "group": self.fields.get("groupName"),
            "groupName": self.fields.get("groupName"),
            "jobType": self.fields.get("jobType"),
            "commit": self.fields.get("commit"),
            "host": self.fields.get("host"),
            "state": self.visible_state(),
            "config": json.dumps(self.config),
            "tags": list(self.tags),
            "summaryMetrics": json.dumps(self.summary),
            "sweepName": self.fields.get("sweep"),
            "sweep": None,
            "stopped": self.stop_requested,
            "shouldStop": self.stop_requested,
            "historyLineCount": len(self.history),
            "eventsLineCount": len(self.events),
            "logLineCount": len(self.output),
            "historyTail": json.dumps(self.history[-1:]),
            "eventsTail": json.dumps(self.events[-1:]),
            "wandbConfig": self.gql_wandb_config,
            "project": self.srv.gql_project_obj(self.entity, self.project),
            "entity": {"__typename": "Entity", "id": b64id("Entity", self.entity), "name": self.entity},
            "user": self.srv.gql_viewer(),
            "createdAt": iso(self.created),
            "heartbeatAt": iso(self.last_stream or self.created),
            "updatedAt": iso(self.last_stream or self.created),
            "readOnly": False,
            "systemMetrics": "{}",
            "jobRepo": self.fields.get("jobRepo"),
            "program": self.fields.get("jobProgram"),
            "projectId": 1,
            "internalId": "1",
            "historyKeys": {"lastStep": len(self.history) - 1, "keys": {}, "sets": []},
            "history": lambda a: list(self.history),
            "files": self.gql_files,
            "fileCount": len(self.files),
            "runInfo": None,
        }

    def gql_wandb_config(self, args):
        block = (self.config.get("_wandb") or {}).get("value") or {}
        keys = args.get("keys")
        return json.dumps({k: v for k, v in block.items() if keys is None or k in keys})

    def gql_files(self, args):
        names = args.get("names") or sorted(self.files)
        upload = args.get("upload", False)
        edges = []
        for n in names:
            f = self.files.get(n)
            if f is None and not upload:
                continue
            url = self.srv.storage_url(self.entity, self.project, self.name, n)
            node = {
                "__typename": "File",
                "id": b64id("File", n),
                "name": n,
                "url": url,
                "directUrl": url,
                "sizeBytes": str((f or {}).get("size", 0)),
                "mimetype": "application/octet-stream",
                "updatedAt": iso(time.time()),
                "md5": (f or {}).get("md5", ""),
                "uploadUrl": url,
                "storagePath": n,
            }
            edges.append({"__typename": "FileEdge", "node": node, "cursor": n})
        return {
            "__typename": "FileConnection",
            "uploadHeaders": [],
            "edges": edges,
            "pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False},
        }


def iso(t):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t))


class Recorder:
    def __init__(self, opts):
        self.opts = opts
        self.lock = threading.RLock()
        self.num_held = 0
        self.port = None
        self.out = open(opts.out, "a", buffering=1) if opts.out else None  # noqa: SIM115
        self.reset()

    def reset(self):
        with self.lock:
            self.requests, self.faults, self.label, self.seq = [], [], "", 0
            self.runs, self.blobs, self.artifacts, self.counter = {}, {}, {}, 0
            self.other_violations = []

    # -- helpers -------------------------------------------------------------------------
    def base(self):
        return f"http://127.0.0.1:{self.port}"

    def storage_url(self, *parts):
        return self.base() + "/storage/" + "/".join(urllib.parse.quote(p) for p in parts) + "?X-Signature=fake"

    def find_run(self, entity, project, name):
        return self.runs.get((entity or self.opts.entity, project or "uncategorized", name))

    def run_or_new(self, entity, project, name):
        key = (entity or self.opts.entity, project or "uncategorized", name)
        new = key not in self.runs
        if new:
            self.runs[key] = Run(self, *key)
        return self.runs[key], new

    # -- GraphQL objects -----------------------------------------------------------------
    def gql_viewer(self):
        e = self.opts.entity
        return {
            "__typename": "User",
            "id": b64id("User", "1"),
            "entity": e,
            "username": e,
            "name": e,
            "email": f"{e}@example.com",
            "admin": False,
            "flags": '{"code_saving_enabled": false}',
            "photoUrl": None,
            "deletedAt": None,
            "accountType": "MEMBER",
            "teams": {
                "__typename": "EntityConnection",
                "edges": [
                    {"__typename": "EntityEdge", "node": {"__typename": "Entity", "id": b64id("Entity", e), "name": e}}
                ],
            },
            "apiKeys": {"__typename": "ApiKeyConnection", "edges": []},
            "defaultEntity": {"__typename": "Entity", "id": b64id("Entity", e), "name": e},
            "organizations": [],
            "userEntity": {"__typename": "Entity", "id": b64id("Entity", e), "name": e},
        }

    def gql_server_info(self):
        feats = []
        if self.opts.gzip:
            feats.append({"__typename": "ServerFeature", "name": "FILESTREAM_GZIP", "isEnabled": True})
        if self.opts.structured_logs:
            feats.append({"__typename": "ServerFeature", "name": "STRUCTURED_CONSOLE_LOGS", "isEnabled": True})
        return {
            "__typename": "ServerInfo",
            "cliVersionInfo": {"max_cli_version": "99.0.0", "min_cli_version": "0.0.1"},
            "latestLocalVersionInfo": None,
            "features": feats,
            "frontendHost": self.base(),
            "exposedVersion": "0.75.0",
            "serverVersion": "0.75.0",
        }

    def gql_project_obj(self, entity, name):
        def run(args):
            r = self.find_run(entity, name, args.get("name"))
            return r.gql() if r else None

        return {
            "__typename": "Project",
            "id": b64id("Project", "v1", name, entity),
            "name": name,
            "entityName": entity,
            "internalId": "1",
            "description": None,
            "createdAt": iso(time.time()),
            "isBenchmark": False,
            "access": "PRIVATE",
            "entity": {"__typename": "Entity", "id": b64id("Entity", entity), "name": entity},
            "bucket": run,
            "run": run,
            "tags": [],
            "runCount": len(self.runs),
            "sweep": lambda a: None,
            "artifactType": lambda a: None,
            "artifactCollection": lambda a: None,
            "artifact": lambda a: None,
        }

    def gql_entity_obj(self, name):
        return {
            "__typename": "Entity",
            "id": b64id("Entity", name),
            "name": name,
            "isTeam": False,
            "available": True,
            "organization": None,
            "settings": None,
            "defaultAccess": "PRIVATE",
            "readOnlyAdmin": False,
            "privateOnly": False,
            "codeSavingEnabled": False,
            "user": self.gql_viewer(),
        }

    def gql_type(self, name):
        names = {
            "Query": [
                "viewer",
                "serverInfo",
                "model",
                "project",
                "entity",
                "organization",
                "clientIDMapping",
                "artifact",
            ],
            "Mutation": sorted(n[4:] for n in dir(self) if n.startswith("mut_")),
            "ServerInfo": list(self.gql_server_info()),
            "Run": ["id", "name", "state"],
            "Artifact": list(self.gql_artifact("x")),
            "Project": ["id", "name"],
        }.get(name, [])
        inputs = {
            "CreateArtifactInput": [
                "historyStep",
                "distributedID",
                "clientID",
                "sequenceClientID",
                "enableDigestDeduplication",
                "ttlDurationSeconds",
                "tags",
            ],
            "CreateArtifactFileSpecInput": ["storagePath", "uploadPartsInput"],
            "UpsertBucketInput": sorted(UPSERT_INPUT),
        }.get(name, [])

        def mk(xs):
            return [{"__typename": "__Field", "name": x} for x in xs]

        return {"__typename": "__Type", "name": name, "fields": mk(names), "inputFields": mk(inputs)}

    # -- GraphQL roots -------------------------------------------------------------------
    def root(self, kind, field, args):
        if kind == "query":
            if field == "viewer":
                return self.gql_viewer()
            if field == "serverInfo":
                return self.gql_server_info()
            if field in ("model", "project"):
                ent, name = args.get("entityName") or self.opts.entity, args.get("name")
                known = any(k[0] == ent and k[1] == name for k in self.runs)
                return self.gql_project_obj(ent, name) if known or field == "model" else None
            if field == "entity":
                return self.gql_entity_obj(args.get("name") or self.opts.entity)
            if field == "organization":
                return None
            if field == "clientIDMapping":
                a = self.artifacts.get(args.get("clientID"))
                return {"__typename": "ClientIDMapping", "serverID": a["id"]} if a else None
            if field == "artifact":
                return self.gql_artifact(args.get("id"))
            if field == "__type":  # old Python clients probe the schema before they act
                return self.gql_type(args.get("name"))
        else:
            inp = args.get("input") or {}
            fn = getattr(self, "mut_" + field, None)
            if fn:
                return fn(inp)
        raise KeyError(field)

    def gql_artifact(self, aid):
        a = next((x for x in self.artifacts.values() if x["id"] == aid), None)
        if a is None:
            a = {"id": aid, "digest": "", "state": "PENDING", "name": "?"}
        return {
            "__typename": "Artifact",
            "id": a["id"],
            "state": a["state"],
            "digest": a["digest"],
            "artifactSequence": {
                "__typename": "ArtifactSequence",
                "id": b64id("Seq", a["name"]),
                "name": a["name"],
                "latestArtifact": None,
            },
            "currentManifest": {
                "__typename": "ArtifactManifest",
                "id": b64id("Manifest", a["id"]),
                "file": {"__typename": "File", "id": "f", "directUrl": self.storage_url("manifest", a["id"])},
            },
            "files": lambda x: {
                "__typename": "C",
                "pageInfo": {"__typename": "PageInfo", "hasNextPage": False, "endCursor": None},
                "edges": [],
            },
        }

    def mut_upsertBucket(self, inp):
        entity = inp.get("entityName") or self.opts.entity
        project = inp.get("modelName") or "uncategorized"
        name = inp.get("name")
        run = None
        if inp.get("id"):
            run = next((r for r in self.runs.values() if r.id == inp["id"]), None)
            if run is None and not name:
                raise GqlError("run not found", 404)
        inserted = False
        if run is None:
            name = name or "".join(random.choices(string.ascii_lowercase + string.digits, k=8))
            run, inserted = self.run_or_new(entity, project, name)
        run.upserts += 1
        unknown = set(inp) - UPSERT_INPUT
        if unknown:
            run.bad(f"upsertBucket: unknown input fields {sorted(unknown)}")
        if inserted:
            self.counter += 1
            run.state = "running"
            run.display_name = f"recorded-run-{self.counter}"
        if run.state in ("finished", "failed", "crashed", "killed"):
            run.state = "running"  # an upsert of a finished run starts it again (resume)
            run.exitcode = None
        if inp.get("displayName"):
            run.display_name = inp["displayName"]
        for k in (
            "groupName",
            "jobType",
            "notes",
            "description",
            "host",
            "commit",
            "jobProgram",
            "jobRepo",
            "sweep",
            "state",
            "debug",
        ):
            if inp.get(k) is not None:
                run.fields[k] = inp[k]
        if inp.get("tags") is not None:
            run.tags = list(inp["tags"])
            for t in run.tags:
                if not 1 <= len(t) <= 64:
                    run.bad(f"tag length not in 1..64: {t!r}")
        if inp.get("config") is not None:
            self.set_config(run, inp["config"])
        if inp.get("summaryMetrics") is not None:
            try:
                run.summary = loads_ext(inp["summaryMetrics"])
            except (TypeError, ValueError) as e:
                run.bad(f"summaryMetrics is not a JSON string: {e}")
        return {
            "__typename": "UpsertBucketPayload",
            "bucket": run.gql(),
            "inserted": inserted,
            "clientMutationId": inp.get("clientMutationId"),
        }

    @staticmethod
    def set_config(run, text):
        if not isinstance(text, str):
            run.bad("config must be a JSON *string* (scalar JSONString)")
            return
        try:
            cfg = loads_ext(text)
        except ValueError as e:
            run.bad(f"config is not JSON: {e}")
            return
        for k, v in cfg.items():
            if not (isinstance(v, dict) and "value" in v):
                run.bad(f"config[{k!r}] lacks the {{'value': ...}} wrapper")
        wb = (cfg.get("_wandb") or {}).get("value") if isinstance(cfg.get("_wandb"), dict) else None
        if not isinstance(wb, dict) or "t" not in wb:
            run.bad("config has no _wandb.value.t block (official clients will not resume such a run)")
        run.config = cfg

    def mut_createRunFiles(self, inp):
        run = self.find_run(inp.get("entityName"), inp.get("projectName"), inp.get("runName"))
        if run is None:
            raise GqlError("run not found", 404)
        files = []
        for n in inp.get("files") or []:
            if n.startswith("/") or "\\" in n or ".." in n.split("/"):
                run.bad(f"createRunFiles: bad path {n!r}")
            files.append(
                {
                    "__typename": "RunFile",
                    "name": n,
                    "uploadUrl": self.storage_url(run.entity, run.project, run.name, n),
                }
            )
        return {"__typename": "CreateRunFilesPayload", "runID": run.id, "uploadHeaders": [], "files": files}

    def mut_markRunFilesUploaded(self, inp):
        return {"__typename": "P", "success": True}

    def mut_notifyScriptableRunAlert(self, inp):
        run = self.find_run(inp.get("entityName"), inp.get("projectName"), inp.get("runName"))
        if run:
            run.alerts.append(inp)
        return {"__typename": "P", "success": True}

    def mut_stopRun(self, inp):
        return {"__typename": "P", "success": True}

    def mut_upsertModel(self, inp):
        p = self.gql_project_obj(inp.get("entityName") or self.opts.entity, inp.get("name"))
        return {"__typename": "P", "model": p, "project": p, "inserted": False}

    def mut_rewindRun(self, inp):
        run = self.find_run(inp.get("entityName"), inp.get("projectName"), inp.get("runName"))
        if run is None:
            raise GqlError("run not found", 404)
        keep = [
            line
            for line in run.history
            if line is not None and json.loads(line).get(inp.get("metricName"), 0) <= inp.get("metricValue", 0)
        ]
        run.history = keep
        return {"__typename": "P", "rewoundRun": run.gql()}

    def mut_createArtifact(self, inp):
        name = (inp.get("artifactCollectionNames") or [inp.get("artifactCollectionName") or "?"])[0]
        aid = b64id("Artifact", str(len(self.artifacts) + 1))
        self.artifacts[inp.get("clientID") or aid] = {
            "id": aid,
            "digest": inp.get("digest", ""),
            "state": "PENDING",
            "name": name,
        }
        return {"__typename": "P", "artifact": self.gql_artifact(aid)}

    def mut_createArtifactManifest(self, inp):
        mid = b64id("Manifest", str(random.random()))
        url = self.storage_url("artifact-manifests", mid)
        return {
            "__typename": "P",
            "artifactManifest": {
                "__typename": "ArtifactManifest",
                "id": mid,
                "file": {"__typename": "File", "id": mid, "uploadUrl": url, "uploadHeaders": []},
            },
        }

    mut_updateArtifactManifest = mut_createArtifactManifest

    def mut_createArtifactFiles(self, inp):
        edges = []
        for f in inp.get("artifactFiles") or []:
            url = self.storage_url("artifact-files", f.get("artifactID", "x"), f.get("name", "x"))
            edges.append(
                {
                    "__typename": "E",
                    "node": {
                        "__typename": "File",
                        "id": b64id("F", f.get("name", "x")),
                        "name": f.get("name"),
                        "displayName": f.get("name"),
                        "storagePath": f"p/{f.get('name')}",
                        "uploadUrl": url,
                        "uploadHeaders": [],
                        "uploadMultipartUrls": None,
                        "artifact": self.gql_artifact(f.get("artifactID")),
                    },
                }
            )
        return {"__typename": "P", "files": {"__typename": "C", "edges": edges}}

    def mut_commitArtifact(self, inp):
        for a in self.artifacts.values():
            if a["id"] == inp.get("artifactID"):
                a["state"] = "COMMITTED"
        return {"__typename": "P", "artifact": self.gql_artifact(inp.get("artifactID"))}

    def mut_useArtifact(self, inp):
        return {"__typename": "P", "artifact": self.gql_artifact(inp.get("artifactID"))}

    def graphql(self, payload):
        """-> (status, json, gql-record)"""
        text, variables = payload.get("query") or "", payload.get("variables") or {}
        rec = {"operation": payload.get("operationName"), "kind": None, "fields": [], "variables": variables}
        try:
            doc = GqlDoc(text)
            if not doc.ops:
                raise GqlError("no operation")
            name = payload.get("operationName")
            op = next((o for o in doc.ops if o["name"] == name), None) if name else doc.ops[0]
            if op is None:
                raise GqlError(f'Unknown operation named "{name}".')
            rec["operation"], rec["kind"] = op["name"], op["kind"]
            rec["fields"] = [s.get("field") for s in op["sel"]]
            vs = dict(variables)
            for n, d in op["vars"].items():
                if d["type"].endswith("!") and d["default"] is None and vs.get(n) is None:
                    raise GqlError(f'Variable "${n}" of required type "{d["type"]}" was not provided.')
                if n not in vs and d["default"] is not None:
                    vs[n] = gql_eval(d["default"], {})
            for n in vs:
                if n not in op["vars"]:
                    rec.setdefault("undeclared_variables", []).append(n)
            data = {}
            with self.lock:
                for s in op["sel"]:
                    if s["field"] == "__typename":
                        data[s["alias"]] = op["kind"].capitalize()
                        continue
                    args = {k: gql_eval(a, vs) for k, a in s["args"].items()}
                    try:
                        val = self.root(op["kind"], s["field"], args)
                    except KeyError:
                        rec["unhandled"] = True
                        raise GqlError(
                            f'Cannot query field "{s["field"]}" on type "{op["kind"].capitalize()}".'
                        ) from None
                    data[s["alias"]] = gql_project(val, s["sel"], doc, vs, self.opts.lenient, s["field"])
            return 200, {"data": data}, rec
        except GqlError as e:
            err = {"message": str(e)}
            if e.extensions:
                err["extensions"] = e.extensions
            rec["error"] = str(e)
            return e.status, {"errors": [err], "data": None}, rec

    # -- file_stream ---------------------------------------------------------------------
    def file_stream(self, entity, project, name, body):
        with self.lock:
            run = self.find_run(entity, project, name)
            if run is None:
                self.other_violations.append(f"file_stream for unknown run {entity}/{project}/{name}")
                return 404, {"error": f"run {entity}/{project}/{name} not found"}
            run.stream_requests += 1
            run.last_stream = time.time()
            if run.state != "running":
                run.bad(f"file_stream after the run was {run.state}")
            if not isinstance(body, dict):
                run.bad("file_stream body is not a JSON object")
                return 400, {"error": "bad body"}
            unknown = set(body) - KNOWN_STREAM_KEYS
            if unknown:
                run.bad(f"file_stream: unknown keys {sorted(unknown)}")
            files = body.get("files") or {}
            if not files and not (set(body) & {"uploaded", "preempting", "complete", "exitcode"}):
                run.heartbeats += 1
            for fname, chunk in files.items():
                self.stream_file(run, fname, chunk)
            if body.get("uploaded"):
                run.uploaded_reported.extend(body["uploaded"])
                for f in body["uploaded"]:
                    if f not in run.files:
                        run.bad(f"'uploaded' names a file that was never PUT: {f}")
            if body.get("preempting"):
                run.preempting = True
            if body.get("complete"):
                code = body.get("exitcode")
                if not isinstance(code, int):
                    run.bad("complete without an integer exitcode")
                run.exitcode = code
                run.state = "finished" if code == 0 else "failed"
            elif body.get("exitcode") is not None:
                run.bad("exitcode without complete")
            resp = {"exitcode": run.exitcode, "limits": {}}
            if run.stop_requested:
                resp["stopped"] = True
            return 200, resp

    def stream_file(self, run, fname, chunk):
        if fname not in KNOWN_STREAM_FILES:
            run.bad(f"file_stream: unexpected file {fname!r}")
        if (
            not isinstance(chunk, dict)
            or not isinstance(chunk.get("offset"), int)
            or not isinstance(chunk.get("content"), list)
        ):
            run.bad(f"{fname}: chunk must be {{offset:int, content:[str]}}")
            return
        off, content = chunk["offset"], chunk["content"]
        if not all(isinstance(c, str) for c in content):
            run.bad(f"{fname}: content must be strings")
            return
        if fname == SUMMARY:
            try:
                run.summary = loads_ext(content[-1])
            except ValueError as e:
                run.bad(f"{fname}: not JSON: {e}")
            return
        lines = {HISTORY: run.history, EVENTS: run.events}.get(fname, run.output)
        if off > len(lines):
            run.bad(f"{fname}: gap: offset {off} but {len(lines)} lines so far")
            lines.extend([None] * (off - len(lines)))
        if fname in (HISTORY, EVENTS) and off < len(lines):
            run.bad(f"{fname}: rewrite: offset {off} but {len(lines)} lines so far")
        for i, line in enumerate(content):
            if fname in (HISTORY, EVENTS):
                self.check_line(run, fname, line, lines)
            if off + i < len(lines):
                lines[off + i] = line
            else:
                lines.append(line)

    @staticmethod
    def check_line(run, fname, line, lines):
        if "\n" in line:
            run.bad(f"{fname}: newline inside a line")
        try:
            row = loads_ext(line)
        except ValueError as e:
            run.bad(f"{fname}: not JSON: {e}")
            return
        if not isinstance(row, dict):
            run.bad(f"{fname}: line is not an object")
            return
        need = ("_step", "_runtime", "_timestamp") if fname == HISTORY else ("_runtime", "_timestamp", "_wandb")
        for k in need:
            if k not in row:
                run.bad(f"{fname}: line without {k}")
        if fname == HISTORY and isinstance(row.get("_step"), int) and lines and lines[-1]:
            prev = json.loads(lines[-1]).get("_step")
            if isinstance(prev, int) and row["_step"] <= prev:
                run.bad(f"{fname}: _step {row['_step']} after {prev} (backend drops non-increasing steps)")

    # -- storage -------------------------------------------------------------------------
    def put(self, path, data):
        with self.lock:
            info = {
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "md5": base64.b64encode(hashlib.md5(data).digest()).decode(),
            }
            self.blobs[path] = data
            parts = [urllib.parse.unquote(p) for p in path.split("/")]
            run = self.find_run(parts[0], parts[1], parts[2]) if len(parts) >= 4 else None
            if run:
                fname = "/".join(parts[3:])
                info["uploads"] = run.files.get(fname, {}).get("uploads", 0) + 1
                run.files[fname] = info
            if self.opts.files_dir:
                dest = os.path.join(self.opts.files_dir, *[p for p in parts if p not in ("", ".", "..")])
                os.makedirs(os.path.dirname(dest), exist_ok=True)
                with open(dest, "wb") as f:
                    f.write(data)

    # -- record --------------------------------------------------------------------------
    def record(self, rec):
        with self.lock:
            self.seq += 1
            rec = {"seq": self.seq, "t": round(time.time(), 3), "label": self.label, **rec}
            self.requests.append(rec)
            if self.out:
                self.out.write(json.dumps(rec) + "\n")

    def take_fault(self, what):
        with self.lock:
            for f in self.faults:
                if f["match"] in what and f["times"] > 0:
                    f["times"] -= 1
                    return f
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rec = None

    def log_message(self, *a):
        pass

    def send_json(self, status, obj, headers=None):
        data = b"" if obj is None else json.dumps(obj).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for k, v in (headers or {}).items():
            self.send_header(k, str(v))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            out = b""
            while True:
                size = int(self.rfile.readline().split(b";")[0].strip() or b"0", 16)
                if size == 0:
                    while self.rfile.readline().strip():
                        pass
                    return out
                out += self.rfile.read(size)
                self.rfile.readline()
        n = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(n) if n else b""

    def auth(self):
        h = self.headers.get("Authorization")
        if not h:
            return None
        scheme, _, val = h.partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, pw = base64.b64decode(val).decode().partition(":")
            except ValueError:
                return {"scheme": "Basic", "malformed": True}
            return {"scheme": "Basic", "user": user, "key_len": len(pw), "_key": pw}
        return {"scheme": scheme, "key_len": len(val), "_key": val}

    def handle_any(self):
        try:
            self.handle_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as e:  # a bug here must be seen by the test, not look like a network fault
            with self.rec.lock:
                self.rec.other_violations.append(f"recorder bug on {self.command} {self.path}: {e!r}")
            print(f"recorder bug: {self.command} {self.path}: {e!r}", file=sys.stderr, flush=True)
            self.send_json(500, {"error": f"recorder bug: {e!r}"})

    def handle_request(self):
        srv = self.rec
        url = urllib.parse.urlsplit(self.path)
        raw = self.read_body()
        if url.path.startswith("/__recorder/"):
            return self.control(url, raw)
        gz = self.headers.get("Content-Encoding", "").lower() == "gzip"
        data = gzip.decompress(raw) if gz and raw else raw
        body = None
        is_json = (
            "json" in (self.headers.get("Content-Type") or "")
            or url.path == "/graphql"
            or url.path.endswith("/file_stream")
        )
        if data and is_json and not url.path.startswith("/storage/"):
            try:
                body = json.loads(data)
            except ValueError:
                body = None
        auth = self.auth()
        rec = {
            "method": self.command,
            "path": url.path,
            "query": url.query,
            "headers": {k.lower(): v for k, v in self.headers.items() if k.lower() != "authorization"},
            "auth": {k: v for k, v in (auth or {}).items() if not k.startswith("_")} or None,
        }
        if gz:
            rec["gzip"] = True
        if body is not None:
            rec["body"] = body
        elif data:
            rec["body"] = {
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "md5_b64": base64.b64encode(hashlib.md5(data).digest()).decode(),
                "head": data[: srv.opts.max_body].decode("utf-8", "replace"),
            }
        status, resp, headers, opname = 404, {"error": "not found"}, None, ""
        if url.path == "/graphql" and isinstance(body, dict):
            m = re.search(r"\b(?:query|mutation)\s+(\w+)", body.get("query") or "")
            opname = body.get("operationName") or (m.group(1) if m else "")
        fault = srv.take_fault(f"{self.command} {url.path} {opname}")
        if fault:
            if opname:
                rec["gql"] = {"operation": opname, "kind": None, "fields": [], "variables": body.get("variables") or {}}
            if fault.get("delay"):
                with srv.lock:
                    srv.num_held += 1
                time.sleep(float(fault["delay"]))
                with srv.lock:
                    srv.num_held -= 1
            if fault.get("drop"):
                rec.update(status=0, fault=True, response=None)
                srv.record(rec)
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(2)
                return
            if fault.get("status"):
                rec.update(status=fault["status"], fault=True, response=fault.get("body"))
                srv.record(rec)
                return self.send_json(fault["status"], fault.get("body") or {"error": "injected"}, fault.get("headers"))
        is_api = url.path == "/graphql" or url.path.endswith("/file_stream")
        key = (auth or {}).get("_key", "")
        if is_api and (auth is None or len(key) < 40 or key == "b" * 40):
            status, resp = 401, {"errors": [{"message": "user is not logged in", "path": ["viewer"]}], "data": None}
        elif is_api and key == "c" * 40:
            status, resp = 403, {"errors": [{"message": "permission denied"}], "data": None}
        elif url.path == "/graphql" and self.command == "POST":
            if not isinstance(body, dict):
                status, resp = 400, {"errors": [{"message": "body is not JSON"}]}
            else:
                status, resp, rec["gql"] = srv.graphql(body)
        elif url.path.startswith("/files/") and url.path.endswith("/file_stream") and self.command == "POST":
            p = [urllib.parse.unquote(x) for x in url.path.split("/")]
            status, resp = srv.file_stream(p[2], p[3], "/".join(p[4:-1]), body)
        elif url.path.startswith("/storage/"):
            path = url.path[len("/storage/") :]
            if self.command == "PUT":
                srv.put(path, data)
                status, resp = 200, None
            elif path in srv.blobs and self.command in ("GET", "HEAD"):
                rec.update(status=200, response=None)
                srv.record(rec)
                blob = srv.blobs[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(blob)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(blob)
                return
        elif url.path.startswith("/sdk/otel/") or url.path in ("/ready", "/healthz", "/"):
            status, resp = 200, {}  # /sdk/otel = usage telemetry of official clients >= 0.30
        rec.update(status=status, response=resp)
        srv.record(rec)
        self.send_json(status, resp, headers)

    def control(self, url, raw):
        srv = self.rec
        parts = url.path.split("/")[2:]
        arg = json.loads(raw) if raw else {}
        with srv.lock:
            if parts[0] == "health":
                return self.send_json(200, {"ok": True, "held": srv.num_held})
            if parts[0] == "requests":
                label = dict(urllib.parse.parse_qsl(url.query)).get("label")
                return self.send_json(200, [r for r in srv.requests if label is None or r["label"] == label])
            if parts[0] == "state":
                return self.send_json(
                    200, {"runs": [r.dump() for r in srv.runs.values()], "violations": srv.other_violations}
                )
            if parts[0] in ("run", "stop") and len(parts) >= 4:
                run = srv.find_run(*[urllib.parse.unquote(p) for p in parts[1:4]])
                if run and parts[0] == "stop":
                    run.stop_requested = True
                return self.send_json(200 if run else 404, run.dump() if run else {"error": "no such run"})
            if parts[0] == "mark":
                srv.label = arg.get("label", "")
                return self.send_json(200, {"ok": True})
            if parts[0] == "faults":
                if arg.get("clear"):
                    srv.faults.clear()
                else:
                    srv.faults.append({"times": 1, "match": "", **arg})
                return self.send_json(200, {"ok": True})
            if parts[0] == "options":
                for k in ("gzip", "lenient", "crash_after", "structured_logs"):
                    if k in arg:
                        setattr(srv.opts, k, arg[k])
                return self.send_json(200, {"ok": True})
            if parts[0] == "reset":
                srv.reset()
                return self.send_json(200, {"ok": True})
            if parts[0] == "shutdown":
                self.send_json(200, {"ok": True})
                threading.Thread(target=self.server.shutdown, daemon=True).start()
                return
        self.send_json(404, {"error": "unknown control"})

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = do_OPTIONS = handle_any


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a killed client is not an error here
            super().handle_error(request, client_address)


# --------------------------------------------------------------------------------------------
# Reading recordings
# --------------------------------------------------------------------------------------------

VOLATILE_KEYS = {"_timestamp", "_runtime", "runtime", "startedAt", "heartbeatAt", "cli_version", "python_version"}


def mask(x, key=""):
    if isinstance(x, dict):
        return {k: mask(v, k) for k, v in sorted(x.items())}
    if isinstance(x, list):
        return [mask(v, key) for v in x]
    if key in VOLATILE_KEYS or key.startswith("system.") or re.fullmatch(r"_timestamp|.*[Tt]imestamp", key):
        return "<volatile>"
    if isinstance(x, str):
        if x[:1] in "{[":
            try:
                return mask(json.loads(x), key)
            except ValueError:
                pass
        x = re.sub(r"http://127\.0\.0\.1:\d+", "<base>", x)
        x = re.sub(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?", "<time>", x)
    return x


def load(path):
    with open(path) as f:
        return [json.loads(line) for line in f if line.strip()]


def summarize(path):
    for r in load(path):
        extra = ""
        if r.get("gql"):
            extra = f"{r['gql']['operation']} vars={json.dumps(r['gql']['variables'])[:160]}"
        elif r["path"].endswith("/file_stream"):
            b = r.get("body") or {}
            fl = {k: f"{v['offset']}+{len(v['content'])}" for k, v in (b.get("files") or {}).items()}
            extra = json.dumps({**fl, **{k: v for k, v in b.items() if k != "files"}})[:300]
        elif isinstance(r.get("body"), dict) and "bytes" in r["body"]:
            extra = f"{r['body']['bytes']} bytes"
        print(f"{r['seq']:4d} {r['label']:<16} {r['method']:<5}{r.get('status', 0):>4} {r['path']} {extra}")


def normalize(path):
    for r in load(path):
        keep = {k: r[k] for k in ("label", "method", "path", "status") if k in r}
        if r.get("gql"):
            keep["gql"] = mask({k: r["gql"][k] for k in ("operation", "fields", "variables")})
        elif "body" in r:
            keep["body"] = mask(r["body"])
        print(json.dumps(keep, sort_keys=True))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--port", type=int, default=0)
    ap.add_argument("--port-file")
    ap.add_argument("--out")
    ap.add_argument("--entity", default="testuser")
    ap.add_argument("--files-dir")
    ap.add_argument("--lenient", action="store_true")
    ap.add_argument("--gzip", action="store_true")
    ap.add_argument("--structured-logs", action="store_true")
    ap.add_argument("--max-body", type=int, default=400)
    ap.add_argument("--crash-after", type=float, default=300.0)
    ap.add_argument("--summarize", metavar="FILE")
    ap.add_argument("--normalize", metavar="FILE")
    opts = ap.parse_args()
    if opts.summarize:
        return summarize(opts.summarize)
    if opts.normalize:
        return normalize(opts.normalize)
    srv = Recorder(opts)
    httpd = Server(("127.0.0.1", opts.port), type("H", (Handler,), {"rec": srv}))
    httpd.daemon_threads = True
    srv.port = httpd.server_address[1]
    if opts.port_file:
        with open(opts.port_file, "w") as f:
            f.write(str(srv.port))
    print(f"LISTENING {srv.base()}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        httpd.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    sys.exit(main())
