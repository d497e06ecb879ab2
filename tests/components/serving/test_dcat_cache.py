"""The context cache: a new action replaces, the least recently used goes first, threads do not tear it."""

from concurrent.futures import ThreadPoolExecutor

import torch

from components.nn.decoder import CausalDecoder, DecoderConfig
from components.serving.dcat import Context, ContextCache, cross, encode_context, fingerprint


def context(value=0.0, length=4):
    return Context((torch.full((1, 2, length, 4), value),), (torch.zeros(1, 2, length, 4),), (length,))


SIZE = context().nbytes


def test_a_new_action_makes_another_fingerprint_and_replaces_what_was_held():
    cache, before, after = ContextCache(10 * SIZE), torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3, 4])
    cache.put("u", fingerprint(before), context(1.0))
    assert cache.get("u", fingerprint(before.clone())).keys[0].mean() == 1
    assert cache.get("u", fingerprint(after)) is None
    cache.put("u", fingerprint(after), context(2.0, 5))
    assert cache.get("u", fingerprint(after)).keys[0].mean() == 2
    assert cache.get("u", fingerprint(before)) is None
    assert (len(cache), cache.nbytes, cache.hits, cache.misses) == (1, context(length=5).nbytes, 2, 2)


def test_fingerprints_tell_tensors_from_their_concatenation():
    a, b = torch.tensor([1, 2]), torch.tensor([3])
    assert len({fingerprint(a, b), fingerprint(torch.cat([a, b])), fingerprint(a, b.int()), fingerprint(b, a)}) == 4


def test_the_least_recently_used_goes_first_and_what_is_too_large_is_not_held():
    cache = ContextCache(2 * SIZE)
    for user in "abc":
        cache.put(user, b"", context())
        cache.get("a", b"")
    assert [user for user in "abc" if cache.get(user, b"")] == ["a", "c"]
    cache.put("d", b"", context(length=9))
    assert cache.get("d", b"") is None
    assert len(cache) == 2
    cache.put("a", b"", context(length=9))
    assert (len(cache), cache.nbytes) == (1, SIZE)


def test_threads_leave_the_bytes_counted_right():
    cache = ContextCache(5 * SIZE)

    def work(thread):
        for n in range(200):
            user = (n * 7 + thread) % 11
            held = cache.get(user, b"")
            assert held is None or held.keys[0].mean() == user
            cache.put(user, b"", context(float(user)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert cache.nbytes == len(cache) * SIZE <= 5 * SIZE


def test_only_missing_users_are_encoded_and_the_ranking_is_the_same():
    torch.manual_seed(0)
    model = CausalDecoder(DecoderConfig.debug()).eval()
    x, length = torch.randn(3, 6, 16), torch.tensor([6, 0, 3])
    candidates, row_of = torch.randn(7, 1, 16), torch.tensor([0, 0, 1, 1, 2, 2, 2])
    prints, cache, encoded = [fingerprint(h, n) for h, n in zip(x, length, strict=True)], ContextCache(2**20), []

    def encode(missing):
        encoded.append(missing)
        return encode_context(model, x[missing], length[missing])

    with torch.inference_mode():
        expected = cross(model, encode_context(model, x, length), candidates, row_of)
        cache.contexts([1], [prints[1]], lambda _: encode([1]))
        for _ in range(2):
            found = cross(model, cache.contexts([0, 1, 2], prints, encode), candidates, row_of)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert encoded == [[1], [0, 2]]
