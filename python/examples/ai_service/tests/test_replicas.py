"""Two replicas behind one Redis."""

from __future__ import annotations

from .service import ask_redis, redis, running, until

REQUEST = {"message": "Where is my order?"}


def test_replicas_share_their_answers_and_survive_their_redis() -> None:
    with redis() as (port, process):
        settings = {"REDIS_URL": f"redis://127.0.0.1:{port}", "REDIS_SECRET": "sixteen bytes and more"}
        with running(**settings) as first, running(**settings) as second, first.client() as a, second.client() as b:
            made = a.post("/process", json=REQUEST).json()
            # Answers are stored behind the reply's back.
            until(lambda: ask_redis(port, "DBSIZE") == ":1")
            found = b.post("/process", json=REQUEST).json()
            sources = [reply["metadata"]["response_generation"]["cache"] for reply in (made, found)]
            assert sources == ["miss", "shared"]
            assert made["response"] == found["response"]
            assert second.metric("antiphon_cache_shared_hits_total") == 1

            process.kill()
            process.wait()
            for client in (a, b):
                answer = client.post("/process", json={"message": "I want a refund"})
                assert answer.status_code == 200
                assert answer.json()["metadata"]["response_generation"]["cache"] == "miss"


def test_a_replica_starts_without_its_redis() -> None:
    with redis() as (port, process):
        process.kill()
        process.wait()
        with running(REDIS_URL=f"redis://127.0.0.1:{port}") as service, service.client() as client:
            assert client.get("/ready").json() == {"ready": True}
            assert client.post("/process", json=REQUEST).status_code == 200
