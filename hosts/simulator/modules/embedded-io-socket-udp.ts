/**
 * The module "embedded:io/socket/udp" (ECMA-419, clause 10.7) in the simulator: UDP by the natives of host.c.
 *
 *     import UDP from "embedded:io/socket/udp";
 *     new UDP({ port: 5683, onReadable(count) { const datagram = this.read(); … } });
 */

import type { Datagram, UDP as Shape } from "../../../src/io.js";

interface Options {
  /** The port of the device's own; any unless given. */
  readonly port?: number;
  readonly target?: unknown;
  readonly format?: "buffer";
  onReadable?: (count: number) => void;
}

export default class UDP extends Native("xs_host_udp_destructor") implements Shape {
  readonly target: unknown;

  constructor(options: Options) {
    super();
    if (options.format !== undefined && options.format !== "buffer") {
      throw new RangeError(`expected the format "buffer", not "${options.format}"`);
    }
    this.target = options.target;
    native("xs_host_udp_create").call(this, options.onReadable, options.port ?? 0);
  }

  write(datagram: Uint8Array, address: string, port: number): void {
    native("xs_host_udp_write").call(this, datagram, address, port);
  }

  read(): Datagram | undefined {
    return native("xs_host_udp_read").call(this);
  }

  close(): void {
    native("xs_host_udp_close").call(this);
  }

  get format(): "buffer" {
    return "buffer";
  }
}
