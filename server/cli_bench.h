/* `quern bench`: loads any OpenAI-style server with streamed chat completions and prints what its clients felt. */
#ifndef QN_CLI_BENCH_H
#define QN_CLI_BENCH_H

/* argv[0] is "bench". Returns a sysexits code. */
int qn_cli_bench(int argc, char **argv);

#endif
