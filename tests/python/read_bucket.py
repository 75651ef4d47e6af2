"""Prints the values of a partition, a line each. From storage/FORMAT.md alone; needs zstandard.
usage: python read_bucket.py BUCKET_FOLDER TOPIC PARTITION      such as: esker-data/bucket hello 0"""
import re, struct, sys
from pathlib import Path

if {"-h", "--help"} & set(sys.argv[1:]):
    sys.exit(print(__doc__))
if len(sys.argv) != 4 or not sys.argv[3].isdigit() or not Path(sys.argv[1]).is_dir():
    sys.exit(print(__doc__.splitlines()[1], file=sys.stderr) or 2)
try:
    import zstandard
except ImportError as missing:
    sys.exit(f"read_bucket.py: {missing}; install zstandard")

KEY = re.compile(r"(\d{20})-(\d{20})-([0-9A-HJKMNP-TV-Z]{26})\.seg")
TABLE = range(256)
for _ in range(8):
    TABLE = [entry >> 1 ^ (0x82F63B78 if entry & 1 else 0) for entry in TABLE]

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

def refuse(wrong, what):
    if wrong:
        sys.exit(f"{sys.argv[1]}: {what}")

class Fields: # of a buffer, one after the other
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, layout):
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values if len(values) > 1 else values[0]

    def bytes(self, count):
        refuse(self.at + count > len(self.data), "a field goes past its end")
        self.at += count
        return self.data[self.at - count:self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take("B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value >> 1 ^ -(value & 1)

class Segment: # chapter 3, opened from its end
    def __init__(self, path):
        self.path, self.data = path, path.read_bytes()
        place, size, crc, _, length, version, own, magic = struct.unpack("<QIIQQII8s", self.data[-48:])
        refuse(magic != b"ESKERSEG" or self.data[:8] != magic, f"{path} is no segment")
        refuse(crc32c(self.data[-48:-12]) != own, f"{path}: the trailer is damaged")
        refuse(version != 1, f"{path} has version {version}: a newer reader is needed")
        refuse(length != len(self.data), f"{path} has {len(self.data)} bytes, not {length}")
        footer = Fields(self.part(place, size, crc, "footer"))
        footer.take("<16sIIQQBBHQQ")
        self.blocks = [footer.take("<QIIII") for _ in range(footer.take("<I"))]
        pages = [footer.take("<QIIQII") for _ in range(footer.take("<I"))]
        self.ended = {footer.take("<QQ")[0] for _ in range(footer.take("<I"))}
        self.partitions = {}
        for place, size, crc, *_ in pages:
            self.directory(Fields(self.part(place, size, crc, "directory page")))

    def part(self, place, size, crc, what):
        part = self.data[place:place + size]
        refuse(len(part) != size or crc32c(part) != crc, f"{self.path}: the {what} at byte {place} is damaged")
        return part

    def directory(self, page):
        for _ in range(page.take("<I")):
            topic, size = page.take("<QH")
            name = page.bytes(size).decode()
            for _ in range(page.take("<I")):
                number, start, end, log_start, _, _ = page.take("<IQQQBQ")
                page.bytes(12 * page.take("<I"))
                for _ in range(page.take("<I")):
                    page.bytes(32 * page.take("<QHQH")[3])
                index = [page.take("<QIIQIq") for _ in range(page.take("<I"))]
                self.partitions[name, topic, number] = start, end, log_start, index

    def batches(self, partition):
        """First offset, records, checksum and bytes of each batch, in order."""
        start, end, _, index = self.partitions[partition]
        opened, block, due = None, b"", start
        for place, size, crc, *_ in index:
            page = Fields(self.part(place, size, crc, "index page"))
            for _ in range(page.take("<I")):
                offset, records, number, at, size, crc = page.take("<QIIIII")
                page.bytes(32), page.bytes(page.take("<H"))
                refuse(start + offset != due, f"{self.path}: offset {due} is missing")
                if number != opened:
                    at_byte, stored, raw, crc_of_block, codec = self.blocks[number]
                    opened, block = number, self.part(at_byte, stored, crc_of_block, "block")
                    block = zstandard.decompress(block, max_output_size=raw) if codec else block
                yield due, records, crc, block[at:at + size]
                due += records
        refuse(due != end, f"{self.path}: it ends at {due}, not {end}")

def values(base, count, crc, batch):
    """Chapter 1: the values of a batch."""
    offset, length, _, magic, own, attributes = struct.unpack_from(">qiibIH", batch)
    wrong = magic != 2 or offset != base or own != crc or length + 12 != len(batch)
    refuse(wrong or crc32c(batch[21:]) != own, f"the batch at offset {base} is damaged")
    codec, plain = attributes & 7, batch[61:]
    refuse(codec not in (0, 4), f"the batch at offset {base} has codec {codec}, not read here")
    fields = Fields(zstandard.ZstdDecompressor().decompressobj().decompress(plain) if codec else plain)
    for _ in range(count):
        fields.varint(), fields.take("b"), fields.varint(), fields.varint()
        fields.bytes(max(fields.varint(), 0))
        yield fields.bytes(max(fields.varint(), 0))
        for _ in range(2 * fields.varint()):
            fields.bytes(max(fields.varint(), 0))

def chain(folder):
    """Chapter 7: the segments of a shard that are its log."""
    found, end = [(*map(int, KEY.fullmatch(it.name).groups()[:2]), it) for it in folder.glob("*.seg")], 0
    while beyond := [one for one in found if one[1] > end]:
        # What lies in a hole was removed, or is missed by one of the partitions.
        end = max(end, min(beyond)[0])
        _, end, path = max((one for one in beyond if one[0] <= end), key=lambda one: one[1])
        yield Segment(path)

def main(bucket, topic, number):
    life = max((it.name for it in bucket.iterdir() if re.fullmatch(r"\d{20}", it.name)), default="")
    refuse(not life, "it is no bucket, or nothing was flushed into it yet")
    shards = [list(chain(folder)) for folder in bucket.glob(f"{life}/shards/*/segments")]
    ended = set().union(*(segment.ended for shard in shards for segment in shard))
    known = [key for shard in shards for segment in shard for key in segment.partitions
             if key[0] == topic and key[2] == number and key[1] not in ended]
    refuse(not known, f"nothing of {topic}/{number} is in the bucket")
    wanted = max(known)
    segments = [segment for shard in shards for segment in shard if wanted in segment.partitions]
    due = max(segment.partitions[wanted][2] for segment in segments)
    for segment in segments:
        start = segment.partitions[wanted][0]
        refuse(start > due, f"offsets {due} to {start} of {topic}/{number} are in no segment: they "
               "are lost, unless the newest checkpoint has a log start above them")
        for base, count, crc, batch in segment.batches(wanted):
            for offset, value in enumerate(values(base, count, crc, batch), base):
                if offset >= due:
                    sys.stdout.buffer.write(value + b"\n")
                    due = offset + 1

main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
