"""What a user of the Arvados Python SDK does with containers; scripts/sdk-check starts it."""

import os
import time

import arvados
import arvados.errors

PATIENCE = 150


def wait_for(what, look):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"waited in vain for {what}")


def create(api, name, command, **more):
    body = {
        "name": name,
        "command": command,
        "state": "Committed",
        "priority": 500,
        "container_image": "",
        "output_path": "/tmp",
        "mounts": {"/tmp": {"kind": "tmp", "capacity": 1000}},
        "runtime_constraints": {"vcpus": 1, "ram": 64 << 20},
        "properties": {"of": "sdk-check"},
        **more,
    }
    return api.container_requests().create(body={"container_request": body}).execute()


def refused(call, status):
    try:
        call.execute()
    except arvados.errors.ApiError as error:
        assert int(error.resp.status) == status, error
        return str(error)
    raise SystemExit(f"not refused with {status}: {call.uri}")


def main():
    api = arvados.api("v1", host=os.environ["ARVADOS_API_HOST"],
                      token=os.environ["ARVADOS_API_TOKEN"], insecure=False)
    assert api.api_client_authorizations().current().execute()["uuid"]

    request = create(api, "exits with 3", ["sh", "-c", "echo out; exit $CODE"],
                     environment={"CODE": "3"})
    assert request["state"] == "Committed" and request["container_uuid"], request

    def final():
        found = api.container_requests().get(uuid=request["uuid"]).execute()
        return found["state"] == "Final" and found

    wait_for("the first request to be final", final)
    container = api.containers().get(uuid=request["container_uuid"]).execute()
    assert container["state"] == "Complete" and container["exit_code"] == 3, container
    assert container["command"][0] == "sh", container

    # Held back until it gets a priority, then ended while it runs.
    held = create(api, "runs for ever", ["sleep", "100000"], priority=0)
    uuid = held["container_uuid"]
    state = lambda: api.containers().get(uuid=uuid, select=["state"]).execute()["state"]
    assert state() == "Queued"
    update = lambda priority: api.container_requests().update(
        uuid=held["uuid"], body={"container_request": {"priority": priority}}).execute()
    update(900)
    wait_for("the second to run", lambda: state() == "Running")
    update(0)
    wait_for("the second to be cancelled", lambda: state() == "Cancelled")

    # Lists: filters, order, selection, pages; one so long that the SDK sends it as a POST.
    for i in range(5):
        create(api, f"n{i}", ["true"], priority=i + 1)
    named = api.container_requests().list(
        filters=[["name", "like", "n_"], ["priority", "<=", "4"]], order=["priority desc"],
        select=["uuid", "name", "priority"], limit=2, offset=1).execute()
    assert [item["name"] for item in named["items"]] == ["n2", "n1"], named
    assert named["items_available"] == 4, named
    unlikely = [f"local-xvhdp-{i:015}" for i in range(300)]
    long = api.container_requests().list(
        filters=[["uuid", "in", unlikely + [request["uuid"]]]], count="none").execute()
    assert [item["uuid"] for item in long["items"]] == [request["uuid"]], long
    every = list(arvados.util.keyset_list_all(api.containers().list, select=["uuid"]))
    assert len(every) == 7, every

    # What cannot be is refused, and says why.
    missing = "local-xvhdp-000000000000000"
    refused(api.container_requests().get(uuid=missing), 404)
    bad = {"container_request": {"command": ["true"], "state": "Committed",
                                 "container_image": "debian:12"}}
    why = refused(api.container_requests().create(body=bad), 422)
    assert "container_image" in why, why
    refused(api.containers().list(filters=[["'; DROP TABLE containers; --", "=", "x"]]), 422)
    wait_for("everything to end", lambda: not api.containers().list(
        filters=[["state", "in", ["Queued", "Locked", "Running"]], ["priority", ">", 0]]).execute()["items"])
    print("the Arvados Python SDK created, listed, followed and cancelled containers")


main()
