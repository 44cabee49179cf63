/**
 * What a signature costs in the simulator: processor time says little by itself, for machines differ; compared with this it
 * does.
 *
 *     const verify = await Verification.create();
 *     await verify.time();                          // milliseconds
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { program } from "../../hosts/node/simulator.js";
import { TestCA } from "../../test/support/certificates.js";
import { newFolder, run } from "../../test/support/command.js";

export class Verification {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async create(): Promise<Verification> {
    const ca = await TestCA.create();
    const { chain } = await ca.issue({ subject: "CN=device" });
    const folder = newFolder();
    // The highest below the root, which has signed it: one signature is verified.
    writeFileSync(join(folder, "certificate-0"), chain.at(-1)!);
    writeFileSync(join(folder, "trust-0"), ca.root);
    return new Verification(folder);
  }

  /** Milliseconds of processor time of verifying one signature of ECDSA on P-256 with a device's build of mbedTLS. */
  async time(): Promise<number> {
    const module = join(checkout(), "build", "tools", "bench", "xs-verify.js");
    const args = [module, "--arguments", this.#folder, "--state", newFolder()];
    const { status, stdout, stderr } = await run(program("simulator"), args);
    if (status !== 0) {
      throw new Error(`the simulator ended with ${status}: ${stderr}`);
    }
    return (JSON.parse(stdout) as { verify: number }).verify;
  }
}
