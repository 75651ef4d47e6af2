"""A gRPC client made from `proto/` alone.

usage: python client.py HOST:PORT PROTO_FOLDER      such as: client.py 127.0.0.1:7070 proto

Creates a topic if it is not there, appends plain records and a raw batch, reads both forms back, follows, and looks at
an error's details. Prints what it read; anything unexpected ends it with an exception. It needs
grpcio and grpcio-tools.
"""
import importlib, struct, sys, tempfile
from pathlib import Path

if {"-h", "--help"} & set(sys.argv[1:]):
    sys.exit(print(__doc__.strip()))
if len(sys.argv) != 3 or ":" not in sys.argv[1] or not (Path(sys.argv[2]) / "esker/v1").is_dir():
    print(__doc__.strip().splitlines()[2], file=sys.stderr)
    sys.exit(2)
try:
    import grpc, grpc_tools
    from grpc_tools import protoc
except ImportError as missing:
    sys.exit(f"client.py: {missing}; install grpcio and grpcio-tools")

# What every gRPC server sends details in; not part of ours.
STATUS = """syntax = "proto3"; package google.rpc; import "google/protobuf/any.proto";
message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }"""


def stubs(protos, folder):
    """The modules that protoc makes of `protos` in `folder`, imported."""
    (folder / "status.proto").write_text(STATUS)
    ours = [str(path.relative_to(protos)) for path in protos.glob("esker/v1/*.proto")]
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    paths = [f"-I{path}" for path in (protos, folder, well_known)]
    outs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *paths, *outs, *ours, "status.proto"]) == 0
    sys.path.insert(0, str(folder))
    names = ["esker.v1.admin_pb2", "esker.v1.log_pb2", "esker.v1.error_pb2", "status_pb2",
             "esker.v1.admin_pb2_grpc", "esker.v1.log_pb2_grpc"]
    return [importlib.import_module(name) for name in names]


with tempfile.TemporaryDirectory(prefix="esker-stubs-") as scratch:
    modules = stubs(Path(sys.argv[2]), Path(scratch))
admin, log, error, status, admin_grpc, log_grpc = modules


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def batch(values):
    """A record batch of Kafka's format v2, plain. Values are shorter than 58 bytes."""
    records = b""
    for delta, value in enumerate(values):
        body = bytes([0, 0, 2 * delta, 1, 2 * len(value)]) + value + b"\0"
        records += bytes([2 * len(body)]) + body
    time = 1795273200000
    body = struct.pack(">HiqqqhiI", 0, len(values) - 1, time, time, -1, -1, -1, len(values)) + records
    return struct.pack(">qiibI", 0, len(body) + 9, -1, 2, crc32c(body)) + body


def told(rpc_error):
    """Our error in the details of a failed call."""
    trailers = dict(rpc_error.trailing_metadata() or ())
    if "grpc-status-details-bin" not in trailers:
        # No service of ours said so: nobody answers there, or somebody else.
        sys.exit(f"client.py: {sys.argv[1]}: {rpc_error.details()} ({rpc_error.code().name})")
    details = status.Status.FromString(trailers["grpc-status-details-bin"]).details
    assert len(details) == 1, details
    ours = error.Error()
    assert details[0].Unpack(ours), details[0].type_url
    return ours


def refused(call):
    try:
        call()
    except grpc.RpcError as rpc_error:
        return rpc_error.code(), told(rpc_error)
    raise AssertionError("it was not refused")


def main(channel):
    admins, logs = admin_grpc.AdminStub(channel), log_grpc.LogStub(channel)
    try:
        made = admins.CreateTopic(admin.CreateTopicRequest(name="python", partitions=1))
        assert made.topic.partitions == 1 and made.topic.settings["max_batch_bytes"], made
    except grpc.RpcError as rpc_error:
        if told(rpc_error).code != error.TOPIC_EXISTS:
            raise
    found = logs.Offsets(log.OffsetsRequest(topic="python", partitions=[0])).partitions[0]
    base = found.end  # of what an earlier run wrote

    header = log.Header(key="from", value=b"python")
    plain = [log.Record(key=b"k", value=b"plain %d" % at, headers=[header]) for at in range(3)]
    requests = [
        log.AppendRequest(request_id=7, topic="python", records=log.Records(records=plain)),
        log.AppendRequest(request_id=8, topic="python", batch=batch([b"raw 0", b"raw 1"])),
        log.AppendRequest(request_id=9, topic="python", partition=5, batch=batch([b"lost"])),
        log.AppendRequest(request_id=10, topic="python", expected_end=base + 99, batch=batch([b"lost"])),
        log.AppendRequest(request_id=11, topic="python", batch=batch([b"raw 2"])[:-1] + b"x"),
        log.AppendRequest(request_id=12, topic="python", records=log.Records(records=plain[:1])),
    ]
    replies = {reply.request_id: reply for reply in logs.Append(iter(requests))}
    spans = [(replies[at].appended.base_offset, replies[at].appended.end) for at in (7, 8, 12)]
    assert spans == [(base, base + 3), (base + 3, base + 5), (base + 5, base + 6)], spans
    codes = [replies[at].error.code for at in (9, 10, 11)]
    assert codes == [error.UNKNOWN_PARTITION, error.EXPECTED_END, error.BATCH_CHECKSUM], codes
    for at in (9, 10, 11):
        assert replies[at].error.durability == error.NOT_WRITTEN, replies[at]
    assert replies[10].error.end <= base + 6, replies[10]

    def read(**fields):
        fields = {"from": log.Position(offset=base), **fields}
        return logs.Read(log.ReadRequest(topic="python", **fields), timeout=20)

    records = [one for reply in read(format=log.RECORDS) for one in reply.records]
    assert [one.offset for one in records] == list(range(base, base + 6)), records
    assert records[0].record.key == b"k" and not records[3].record.HasField("key")
    assert records[0].record.headers[0] == header and records[3].record.timestamp_ms == 1795273200000
    for one in records:
        print(one.record.value.decode())
    middle = log.Position(offset=base + 1), log.Position(offset=base + 4)
    part = read(format=log.RECORDS, **{"from": middle[0], "until": middle[1]})
    assert [one.offset for reply in part for one in reply.records] == [base + 1, base + 2, base + 3]

    batches = [one for reply in read(format=log.BATCHES) for one in reply.batches]
    assert [one.base_offset for one in batches] == [base, base + 3, base + 5], batches
    for one in batches:
        magic, crc = struct.unpack_from(">bI", one.data, 16)
        assert magic == 2 and crc == crc32c(one.data[21:]), one
    assert batches[1].data[21:] == requests[1].batch[21:], "as the producer sent it"

    following = read(format=log.RECORDS, follow=True, **{"from": log.Position(edge=log.END)})
    assert next(following).next_offset == base + 6
    late = log.Records(records=[log.Record(value=b"late")])
    list(logs.Append(iter([log.AppendRequest(request_id=1, topic="python", records=late)])))
    came = next(one for reply in following for one in reply.records)
    assert (came.offset, came.record.value) == (base + 6, b"late"), came
    following.cancel()
    print(came.record.value.decode())

    code, what = refused(lambda: admins.DescribeTopic(admin.DescribeTopicRequest(name="nowhere")))
    assert code == grpc.StatusCode.NOT_FOUND and what.code == error.UNKNOWN_TOPIC, (code, what)
    code, what = refused(lambda: list(read(**{"from": log.Position(offset=base + 50)})))
    assert code == grpc.StatusCode.OUT_OF_RANGE and what.code == error.OFFSET_OUT_OF_RANGE, code
    assert (what.out_of_range.log_start, what.out_of_range.end) == (found.log_start, base + 7), what
    assert str(base + 50) in what.message and not what.retriable, what


with grpc.insecure_channel(sys.argv[1]) as to_agent:
    main(to_agent)
