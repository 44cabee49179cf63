/**
 * The development EST server as a process of its own, which can be killed and started again where it was.
 *
 *     const server = await ServerProcess.start(["--out", folder, "--lifetime", "60s"]);
 *     const { associations, dtlsHeap } = await server.stats();
 *     await server.restart("SIGKILL", 1000);
 *     await server.stop();
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { checkout } from "../../hosts/node/native.js";
import type { ServerReport } from "../est-server/main.js";

export class ServerProcess {
  readonly #args: readonly string[];
  #port = 0;
  #child!: ChildProcess;
  #isDown = true;
  /** Resolves once no restart is under way. */
  #change: Promise<void> = Promise.resolve();
  /** Whoever waits for a report, in order. */
  readonly #asking: ((report: ServerReport) => void)[] = [];
  /** What it wrote to standard error, and the statuses that it ended with where nobody ended it. */
  readonly failures: string[] = [];
  /** How often it was started again. */
  restarts = 0;

  private constructor(args: readonly string[]) {
    this.#args = args;
  }

  /** `args`: those of the server, but for its port. */
  static async start(args: readonly string[]): Promise<ServerProcess> {
    const server = new ServerProcess(args);
    await server.#start();
    return server;
  }

  get port(): number {
    return this.#port;
  }

  /** Loses all associations without a word. */
  forget(): void {
    this.#tell("forget");
  }

  /** What it holds, after a collection. For a server that nobody ends meanwhile. */
  async stats(): Promise<ServerReport> {
    await this.#change;
    return new Promise((resolve) => {
      this.#asking.push(resolve);
      this.#tell("stats");
    });
  }

  /** Ends it, by the power (SIGKILL) or in order, and starts it anew after so many milliseconds. */
  restart(signal: "SIGKILL" | "SIGTERM", after: number): Promise<void> {
    this.#change = this.#change.then(async () => {
      this.restarts++;
      await this.#end(signal);
      await delay(after);
      await this.#start();
    });
    return this.#change;
  }

  async stop(): Promise<void> {
    await this.#change;
    await this.#end("SIGTERM");
  }

  #tell(command: string): void {
    if (!this.#isDown) {
      this.#child.stdin?.write(`${command}\n`);
    }
  }

  async #end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    this.#isDown = true;
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill(signal);
      await once(this.#child, "exit");
    }
  }

  async #start(): Promise<void> {
    const program = join(checkout(), "build", "tools", "est-server", "main.js");
    const args = ["--expose-gc", program, "--control", "--port", String(this.#port), ...this.#args];
    const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "pipe"], detached: true });
    // In a process group of its own: Ctrl-C is for the soak, which ends its server, as the end of its input does.
    this.#child = child;
    child.stdin.on("error", () => {}); // it has ended: that is told of below
    child.stderr.setEncoding("utf8").on("data", (text: string) => this.failures.push(text.trim()));
    child.on("exit", (status, signal) => {
      if (!this.#isDown) {
        this.#isDown = true;
        this.failures.push(`the server ended by itself, with ${status ?? signal}`);
      }
    });
    await new Promise<void>((resolve, reject) => {
      child.on("error", reject);
      child.on("exit", () => reject(new Error(`the server does not start: ${this.failures.join(" ")}`)));
      createInterface({ input: child.stdout }).on("line", (line) => {
        const port = /listening on +coaps:\/\/[^ ]*:(\d+)$/.exec(line)?.[1];
        if (port !== undefined) {
          this.#port = Number(port);
          this.#isDown = false;
          resolve();
        } else if (line.startsWith("{")) {
          this.#asking.shift()?.(JSON.parse(line) as ServerReport);
        }
      });
    });
  }
}
