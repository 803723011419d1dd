from trimtab.cli.main import main

main()
