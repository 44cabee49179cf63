export * from "torpor/src/index";
