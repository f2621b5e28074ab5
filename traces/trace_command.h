/* moeplan trace info|convert|check ...: argv[0] is "trace". Returns the exit code. */
#ifndef MOE_TRACES_TRACE_COMMAND_H
#define MOE_TRACES_TRACE_COMMAND_H

int moe_trace_command(int argc, char **argv);

#endif
