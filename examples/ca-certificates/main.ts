import { ESTClient } from "torpor";

trace(`${ESTClient.name}\n`);
