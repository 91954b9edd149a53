"""openwandb, told by OPENWANDB_* where to serve, with what W&B's own server has and it lacks.

It tells a client that resumes a run where its history ends. It lets artifacts be
uploaded as the client of today does: openwandb calls them committed at once, and the client uploads nothing. It keeps
every GraphQL mutation in mutations.jsonl of its data directory: openwandb forgets groups, job types and aliases.
"""

import base64
import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import openwandb.cli
import openwandb.graphql_schema as graphql
from openwandb import database, storage
from openwandb.server import app
from starlette.requests import Request
from starlette.responses import JSONResponse

plain_run, plain_create, plain_type = graphql._run_to_type, database.create_artifact, graphql.ArtifactType
created: set[str] = set()


def run_to_type(run: dict[str, Any]) -> graphql.RunType:
    answer = plain_run(run)
    content = storage.read_file(answer._entity_name, answer._project_name, answer.name, "wandb-history.jsonl")
    lines = (content or b"").decode().splitlines()
    answer.history_line_count, answer.history_tail, answer.events_tail = len(lines), json.dumps(lines[-1:]), "[]"
    answer._config_json = json.dumps({**json.loads(answer._config_json), "t": {"value": 1}})
    return answer


def create_artifact(*args: Any, **kwargs: Any) -> dict[str, Any]:
    row = plain_create(*args, **kwargs)
    created.add(str(row["id"]))
    return row


def artifact_type(**fields: Any) -> graphql.ArtifactType:
    if fields["id"] in created:
        created.remove(fields["id"])
        fields["state"] = "PENDING"
    return plain_type(**fields)


def upload_answer(name: str, variables: dict[str, Any], base: str) -> dict[str, Any] | None:
    """What W&B's server answers to the steps of an upload; openwandb then takes the files themselves."""

    def place(artifact: str, file: str) -> dict[str, Any]:
        return {"id": file, "uploadUrl": f"{base}artifacts/{artifact}/{file}", "uploadHeaders": []}

    if name == "CreateArtifactManifest":
        identifier = variables["artifactID"]
        manifest = {"id": identifier, "file": place(identifier, variables["name"])}
        return {"createArtifactManifest": {"artifactManifest": manifest}}
    if name == "UpdateArtifactManifest":
        identifier = variables["artifactManifestID"]
        manifest = {"id": identifier, "file": place(identifier, "wandb_manifest.json")}
        return {"updateArtifactManifest": {"artifactManifest": manifest}}
    if name == "CreateArtifactFiles":
        edges = []
        for spec in variables["input"]["artifactFiles"]:
            identifier, file = spec["artifactID"], spec["name"]
            node = {"storagePath": f"{identifier}/{file}", "uploadMultipartUrls": None, "artifact": {"id": identifier}}
            edges.append({"node": {**place(identifier, file), **node}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}
    if name == "CommitArtifact":
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}}
    return None


def wrong_key(header: str | None) -> bool:
    """openwandb takes whoever has a key that it does not know for its administrator."""
    if header is None:
        return False
    user_and_key = base64.b64decode(header.removeprefix("Basic ")).decode()
    return database.verify_api_key(user_and_key.partition(":")[2]) is None


async def between(request: Request, call_next: Any) -> Any:
    if wrong_key(request.headers.get("authorization")):
        return JSONResponse({"errors": [{"message": "invalid API key"}]}, status_code=401)
    if request.url.path.endswith("/graphql"):
        body = await request.json()
        found = re.match(r"\s*mutation (\w+)", body.get("query", ""))
        if found:
            variables = body.get("variables") or {}
            with open(Path(os.environ["OPENWANDB_DATA_DIR"]) / "mutations.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"mutation": found[1], "variables": variables}) + "\n")
            if answer := upload_answer(found[1], variables, str(request.base_url)):
                return JSONResponse({"data": answer})
    return await call_next(request)


graphql._run_to_type = run_to_type
database.create_artifact, graphql.ArtifactType = create_artifact, artifact_type
# It computes a bcrypt hash for every request, slow on purpose.
database.verify_api_key = functools.cache(database.verify_api_key)
app.middleware("http")(between)
openwandb.cli.main(["serve"])
