/**
 * npm run bench -- --only blocks: what the size of CoAP blocks does (RFC 7959): a first boot, which is crts, att and sen, and
 * a wake by context that does crts, both in the simulator.
 */

import { join } from "node:path";
import type { BlockSize } from "../../src/coap/block.js";
import { newFolder } from "../../test/support/command.js";
import { type Benchmark, type Context, grouped, medians, type Report } from "./bench.js";
import { factoryFiles, SimulatedDevice } from "./process.js";
import { forkServer } from "./server.js";

const SIZES: readonly BlockSize[] = [64, 128, 256, 512, 1024];
/** More would change nothing: bytes differ by those of signatures, the heap by when XS collects. */
const RUNS_MAX = 5;

/** Bytes are UDP payload, of the handshake too. */
interface Figures {
  readonly bytes: number;
  readonly datagrams: number;
  readonly roundTrips: number;
  /** Bytes at the peak. */
  readonly xsPeak: number;
  readonly dtlsPeak: number;
}

export interface BlocksRow {
  readonly block: BlockSize;
  readonly boot: Figures;
  readonly crts: Figures;
}

export type BlocksFigures = readonly BlocksRow[];

async function measure({ runs, progress }: Context): Promise<BlocksFigures> {
  const dir = join(newFolder(), "est");
  const server = await forkServer({ kind: "development", dir });
  try {
    const rows: BlocksRow[] = [];
    for (const block of SIZES) {
      progress(`blocks of ${block} bytes`);
      const all = { boot: [] as Figures[], crts: [] as Figures[] };
      for (let run = 0; run < Math.min(runs, RUNS_MAX); run++) {
        const device = new SimulatedDevice(server.port, factoryFiles(dir));
        const wake = async (operation: "run" | "crts"): Promise<Figures> => {
          const { association, heap } = (await device.wake(operation, { block })).value;
          const { handshake, application, roundTrips } = association;
          return {
            bytes: handshake.bytesOut + handshake.bytesIn + application.bytesOut + application.bytesIn,
            datagrams:
              handshake.datagramsOut + handshake.datagramsIn + application.datagramsOut + application.datagramsIn,
            roundTrips: roundTrips + application.datagramsIn,
            xsPeak: heap.xsPeak,
            dtlsPeak: heap.dtlsPeak,
          };
        };
        all.boot.push(await wake("run"));
        await wake("crts"); // with its new certificate: a full handshake
        all.crts.push(await wake("crts"));
      }
      rows.push({ block, boot: medians(all.boot), crts: medians(all.crts) });
    }
    return rows;
  } finally {
    await server.stop();
  }
}

function report(rows: BlocksFigures): Report {
  const cells = ({ bytes, datagrams, roundTrips, xsPeak, dtlsPeak }: Figures): (string | number)[] => [
    ...[grouped(bytes), datagrams, roundTrips, grouped(xsPeak), grouped(dtlsPeak)],
  ];
  const head = ["bytes of a block", "bytes", "datagrams", "round trips", "XS heap", "DTLS heap"];
  return {
    title: "Block sizes",
    parts: [
      "In the simulator; bytes are UDP payload both ways, round trips those of the handshake and of each request and block, heap: bytes " +
        "at the peak. A first boot: a full handshake, crts, att and sen.",
      { head, rows: rows.map(({ block, boot }) => [block, ...cells(boot)]) },
      "A wake by context that does crts, whose answer takes two certificates:",
      { head, rows: rows.map(({ block, crts }) => [block, ...cells(crts)]) },
    ],
  };
}

export const blocks: Benchmark<BlocksFigures> = {
  name: "blocks",
  about: "blocks of 64 to 1,024 bytes: bytes, datagrams, round trips, heap",
  measure,
  report,
};
