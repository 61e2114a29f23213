/* The header named by HEADER compiles alone, and twice. */
#include HEADER
#include HEADER

int main(void)
{
    return 0;
}
