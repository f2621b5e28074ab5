/* moeplan validate [SUITE]...: argv[0] is "validate". Returns the exit code. */
#ifndef MOE_REPORTS_VALIDATION_VALIDATE_COMMAND_H
#define MOE_REPORTS_VALIDATION_VALIDATE_COMMAND_H

int moe_validate_command(int argc, char **argv);

#endif
