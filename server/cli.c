/* main() of `quern`, the command for people beside the daemon. Each subcommand is a file of its own. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "server/cli_bench.h"

static const struct { const char *name; int (*run)(int argc, char **argv); const char *help; } commands[] = {
    {"bench", qn_cli_bench, "load an OpenAI-style server and print what its clients felt"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

int main(int argc, char **argv) {
    for (int i = 0; argc > 1 && i < N_COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name)) return commands[i].run(argc - 1, argv + 1);
    int asked = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"));
    if (argc > 1 && !strcmp(argv[1], "--version")) return printf("quern %s\n", QN_VERSION) < 0;
    fprintf(asked ? stdout : stderr, "usage: quern COMMAND [OPTIONS]\n");
    for (int i = 0; i < N_COMMANDS; i++) fprintf(asked ? stdout : stderr, "  %-8s %s\n", commands[i].name, commands[i].help);
    return asked ? 0 : EX_USAGE;
}
