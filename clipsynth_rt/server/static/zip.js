// Archives of files as they are (PKWARE's APPNOTE.TXT, method 0): sound files do not get smaller.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Return little-endian bytes of [width, value] pairs. */
function pack(...fields) {
  const bytes = new Uint8Array(fields.reduce((sum, [width]) => sum + width, 0));
  let at = 0;
  for (const [width, value] of fields) for (let i = 0; i < width; i++) bytes[at++] = (value >>> (8 * i)) & 0xff;
  return bytes;
}

const UTF8 = 0x0800; // how names are written
const DATE = 0x21; // 1 January 1980, the first day that the format knows

/**
 * Return an archive.
 * @param {Array<[string, Blob]>} files names, each once, and contents
 */
export async function zip(files) {
  const [parts, directory] = [[], []];
  let offset = 0;
  for (const [name, blob] of files) {
    const [path, data] = [new TextEncoder().encode(name), new Uint8Array(await blob.arrayBuffer())];
    const common = [[2, 20], [2, UTF8], [2, 0], [2, 0], [2, DATE], [4, crc32(data)], [4, data.length], [4, data.length], [2, path.length], [2, 0]];
    const head = pack([4, 0x04034b50], ...common);
    directory.push(pack([4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]), path);
    parts.push(head, path, data);
    offset += head.length + path.length + data.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = pack([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
