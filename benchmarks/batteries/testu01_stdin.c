/* TestU01's batteries on 32-bit words from standard input.   usage: testu01_stdin small|crush|big NAME
   cc -O2 testu01_stdin.c -ltestu01 -lprobdist -lmylib -lm -o testu01_stdin                              */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "unif01.h"
#include "bbattery.h"
#include "swrite.h"

static unsigned int buffer[1 << 16];
static size_t at, have;
static unsigned long long taken;

static unsigned int word(void)
{
    if (at == have) {
        have = fread(buffer, sizeof *buffer, sizeof buffer / sizeof *buffer, stdin);
        at = 0;
        if (have == 0) {
            fprintf(stderr, "standard input ended after %llu words\n", taken);
            exit(2);
        }
    }
    taken++;
    return buffer[at++];
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 1;
    unif01_Gen *gen = unif01_CreateExternGenBits(argv[2], word);
    swrite_Basic = FALSE; /* the summary only */
    if (strcmp(argv[1], "small") == 0)
        bbattery_SmallCrush(gen);
    else if (strcmp(argv[1], "crush") == 0)
        bbattery_Crush(gen);
    else
        bbattery_BigCrush(gen);
    printf("%llu words were read\n", taken);
    unif01_DeleteExternGenBits(gen);
    return 0;
}
